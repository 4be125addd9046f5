/** Types of admin-portal.js: keep a copy beside your own code, or beside a copy of the module. */

export type GetToken = () => string | null | undefined | Promise<string | null | undefined>;

/** Why there is no portal. */
export type PortalErrorReason =
  | "configuration" // `endpoint` is missing, or no URL
  | "unauthenticated" // 401, or `getToken` failed: another token makes it try again, a few times
  | "forbidden" // 403, and so does it here
  | "unknown-organization" // 404
  | "invalid-request" // 400, 422: `organization-id` or `features`
  | "busy" // 429, 503
  | "unreachable" // no answer: the network, or CORS
  | "unavailable" // another status, or an answer without a link
  | "refused-location" // the link leads to an origin that is not in `origins`, or over plain http
  | "load-failed" // the portal says so: mostly a link that was opened before, or too late
  | "silent" // the portal says nothing: mostly an origin that is not registered with Scalekit, or a policy without `frame-src`
  | "session-expired"; // and several new ones at once, too

export interface PortalDetail {
  organizationId: string;
}

export interface PortalSessionDetail extends PortalDetail {
  /** The end of the session, if the portal said it. */
  expiresAt: Date | null;
}

export interface PortalChangeDetail extends PortalDetail {
  /** The directory's or the connection's id, if the portal said it. */
  id: string | null;
  /** Such as "OKTA", if the portal said it. */
  provider: string | null;
}

export interface PortalErrorDetail extends PortalDetail {
  reason: PortalErrorReason;
  /** The HTTP status, if there was one. */
  status?: number;
  /** What people are told. */
  message: string;
  /** Whether it goes on by itself; otherwise there is a button. */
  retrying: boolean;
}

export interface ScalekitAdminPortalEventMap {
  "portal-ready": CustomEvent<PortalSessionDetail>;
  "sso-enabled": CustomEvent<PortalChangeDetail>;
  "sso-disabled": CustomEvent<PortalChangeDetail>;
  "directory-enabled": CustomEvent<PortalChangeDetail>;
  "directory-disabled": CustomEvent<PortalChangeDetail>;
  "session-warning": CustomEvent<PortalSessionDetail>;
  "session-expired": CustomEvent<PortalDetail>;
  "portal-error": CustomEvent<PortalErrorDetail>;
}

/**
 * `<scalekit-admin-portal organization-id endpoint features origins token>`
 *
 * Parts to style: stage, panel, status, error, retry, frame. Custom properties: --admin-portal-height (600px at least), --admin-portal-accent,
 * --admin-portal-line, --admin-portal-radius.
 */
export class ScalekitAdminPortalElement extends HTMLElement {
  /** Asked anew for each link; comes before the attribute `token`. */
  getToken: GetToken | null;
  /** Begins anew, with a new link. */
  reload(): void;
}

/** Everything that is said to people. For another language, assign to it before the element is used. */
export const words: {
  /** Of the numbers in the sentences (BCP 47). */
  language: string;
  /** The frame's name. */
  title: string;
  loading: string;
  again: string;
  renewing: string;
  retry: string;
  warning: string;
  /** With {time}. */
  warningAt: string;
  /** With {wait}. */
  busyFor: string;
  errors: Record<PortalErrorReason, string>;
};

declare global {
  interface HTMLElementTagNameMap {
    "scalekit-admin-portal": ScalekitAdminPortalElement;
  }
  interface GlobalEventHandlersEventMap extends ScalekitAdminPortalEventMap {} // they bubble
}
