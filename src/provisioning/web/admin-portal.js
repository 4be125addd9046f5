// @ts-check
/**
 * <scalekit-admin-portal>: Scalekit's admin portal in a frame of your own settings page, for as long as the page is open.
 *
 *     <scalekit-admin-portal organization-id="org_123" endpoint="https://provisioning.example.com"></scalekit-admin-portal>
 *     <script type="module">document.querySelector("scalekit-admin-portal").getToken = …</script>
 *     <script type="module" src="https://provisioning.example.com/embed/admin-portal.js"></script>
 *
 * organization-id  the customer's organization; while there is none, nothing is shown
 * endpoint         where the service is: links come from POST {endpoint}/v1/organizations/{organization-id}/portal-links
 * features         what may be configured, such as "dir_sync sso"; without, Scalekit decides
 * origins          where the portal may come from, such as "https://auth.example.com"; a link that leads elsewhere is not framed
 * token            the visitor's token, sent as bearer; better is the property `getToken`, a function that is asked anew for each link
 *
 * A page with a content security policy needs `script-src` and `connect-src` for the service and `frame-src` for the portal, and no
 * 'unsafe-inline'. The portal stays blank until the page's origin is registered with Scalekit.
 *
 * It tells the page what happens with events that bubble (their details are in admin-portal.d.ts): portal-ready, sso-enabled, sso-disabled,
 * directory-enabled, directory-disabled, session-warning, session-expired, portal-error. They are hints from a browser: refresh what you
 * show, and decide nothing by them. A link is a credential; this module puts it into the frame's `src` and
 * nowhere else; browsers list it in the page's own resource timing, where scripts of yours that report timings should leave it out.
 */

/** @import { PortalErrorReason } from "./admin-portal.js" */

const RETRIES = 4; // new links in a row that come to nothing, before a person is asked
const FIRST_PAUSE = 1_000; // milliseconds; each pause is twice as long, less up to half of it by chance
const STEADY = 60_000; // a session that lasted this long was no failure
const ANSWER_WITHIN = 30_000; // the service itself gives up on Scalekit after ten seconds
const LOAD_WITHIN = 20_000; // a frame that has not loaded by then is tried anew; one that has, and is silent, stays, with a note
const SHOWN_AFTER = 1_000; // a portal that says nothing is shown, this long after the frame has loaded
const LONGEST_WAIT = 30; // seconds: what the service may ask for and nobody is told

/** Everything that is said to people. For another language, assign to it before the element is used. */
export const words = {
  language: "en",
  title: "Single sign-on and directory sync",
  loading: "Opening the settings …",
  again: "That did not work. Trying again …",
  renewing: "The session has ended. Opening a new one …",
  retry: "Try again",
  warning: "This session ends soon. Save what you are doing; a new session opens by itself.",
  warningAt: "This session ends at {time}. Save what you are doing; a new session opens by itself.",
  busyFor: "The service is busy. Try again in {wait}.",
  errors: {
    configuration: "The settings cannot be opened: this page does not say where to find them.",
    unauthenticated: "You are signed out, or your sign-in is too old. Sign in again, then try again.",
    forbidden: "You may not change these settings. Ask an administrator of your organization.",
    "unknown-organization": "There are no settings for this organization yet. Ask the support of this application.",
    "invalid-request": "The settings cannot be opened: this page asked for something that the service does not know.",
    busy: "The service is not available at the moment. Try again later.",
    unreachable: "The service cannot be reached. Check your connection, then try again.",
    unavailable: "The service could not open the settings. Try again later.",
    "refused-location": "The settings cannot be opened: they are at an address that this page does not trust.",
    "load-failed": "The settings did not open. Try again.",
    silent: "The settings did not say that they are ready. If you do not see them, try again.",
    "session-expired": "The session has ended, and no new one could be opened. Try again.",
  },
};

/** What the portal says, in Scalekit's official words and in those of its guides. @type {Map<unknown, string>} */
const MEANINGS = new Map([
  ["PORTAL_LOAD_SUCCESS", "portal-ready"],
  ["PORTAL_LOAD_FAILURE", "load-failed"],
  ["ORGANIZATION_SSO_ENABLED", "sso-enabled"],
  ["SSO_CONFIGURED", "sso-enabled"],
  ["ORGANIZATION_SSO_DISABLED", "sso-disabled"],
  ["ORGANIZATION_DIRECTORY_ENABLED", "directory-enabled"],
  ["SCIM_CONFIGURED", "directory-enabled"],
  ["ORGANIZATION_DIRECTORY_DISABLED", "directory-disabled"],
  ["PORTAL_SESSION_WARNING", "session-warning"],
  ["PORTAL_SESSION_EXPIRY", "session-expired"],
  ["SESSION_EXPIRED", "session-expired"],
]);

/** @type {Record<number, PortalErrorReason>} */
const REFUSALS = {
  400: "invalid-request",
  401: "unauthenticated",
  403: "forbidden",
  404: "unknown-organization",
  422: "invalid-request",
  429: "busy",
  503: "busy",
};

const LOOPBACK = ["localhost", "127.0.0.1", "[::1]"];

const STYLE = new CSSStyleSheet(); // `style-src 'self'` allows it, as it does no <style>
STYLE.replaceSync(`
  :host { display: block; }
  :host([hidden]) { display: none; }
  .stage { display: grid; grid-template-columns: minmax(0, 1fr); }
  .stage[data-state="idle"] { display: none; }
  .panel { display: flex; flex-wrap: wrap; align-items: center; gap: 0.75rem 1rem; padding: 0.75rem 1rem; }
  .stage:is([data-state="shown"], [data-state="ready"]) .panel { padding: 0; }
  .stage:is([data-state="loading"], [data-state="error"]) { min-height: max(600px, var(--admin-portal-height, 600px)); }
  .stage:is([data-state="loading"], [data-state="error"]) > * { grid-area: 1 / 1; }
  .stage:is([data-state="loading"], [data-state="error"]) .panel {
    flex-direction: column; flex-wrap: nowrap; justify-content: center; padding: 2rem 1rem; text-align: center;
  }
  .stage:is([data-state="error"], [data-state="warning"], [data-state="silent"]) .panel {
    border: 1px solid var(--admin-portal-line, color-mix(in srgb, currentcolor 25%, transparent));
    border-radius: var(--admin-portal-radius, 0.5rem);
  }
  .stage:is([data-state="warning"], [data-state="silent"]) .panel { margin-bottom: 0.75rem; }
  .stage[data-state="loading"] .panel::before {
    content: ""; width: 1.75rem; height: 1.75rem; border: 3px solid color-mix(in srgb, currentcolor 20%, transparent);
    border-top-color: var(--admin-portal-accent, currentcolor); border-radius: 50%; animation: turn 1s linear infinite;
  }
  @keyframes turn { to { transform: rotate(1turn); } }
  @media (prefers-reduced-motion: reduce) { .stage[data-state="loading"] .panel::before { animation-duration: 8s; } }
  p { max-width: 48rem; margin: 0; overflow-wrap: anywhere; }
  p:empty { position: absolute; }
  p:focus { outline: none; }
  button {
    padding: 0.5rem 1rem; border: 1px solid currentcolor; border-radius: var(--admin-portal-radius, 0.5rem); background: none;
    color: var(--admin-portal-accent, inherit); font: inherit; font-weight: 600; cursor: pointer;
  }
  button[hidden] { display: none; }
  button:focus-visible { outline: 2px solid var(--admin-portal-accent, currentcolor); outline-offset: 2px; }
  iframe { display: block; width: 100%; height: max(600px, var(--admin-portal-height, 600px)); min-height: 600px; border: 0; }
  .stage[data-state="loading"] iframe { visibility: hidden; }
`);

/** Why there is no portal. `retry`: another link may help; `wait`: not before so many seconds; `steady`: it went well for long. */
class Failure extends Error {
  /** @param {PortalErrorReason} reason @param {{ status?: number, retry?: boolean, wait?: number, steady?: boolean }} [more] */
  constructor(reason, { status, retry = false, wait, steady = false } = {}) {
    super(reason);
    this.reason = reason;
    this.status = status;
    this.retry = retry;
    this.wait = wait;
    this.steady = steady;
  }

  /** For people. */
  get text() {
    if (this.reason !== "busy" || this.wait === undefined) return words.errors[this.reason];
    const [number, unit] = this.wait < 90 ? [this.wait, "second"] : [Math.ceil(this.wait / 60), "minute"];
    const wait = new Intl.NumberFormat(words.language, { style: "unit", unit, unitDisplay: "long" }).format(number);
    return filled(words.busyFor, "wait", wait);
  }
}

export class ScalekitAdminPortalElement extends HTMLElement {
  static observedAttributes = ["organization-id", "endpoint", "features", "origins", "token"];

  #root = this.attachShadow({ mode: "open" });
  #status = part("p", "status", { role: "status", tabindex: "-1" });
  #error = part("p", "error", { role: "alert" });
  #retry = part("button", "retry", { type: "button" });
  #stage = part("div", "stage");
  /** @type {HTMLIFrameElement | null} */ #frame = null;
  /** @type {AbortController | null} Its signal ends all that goes on. */ #run = null;
  /** @type {() => void} What the button does. */ #again = () => {};
  /** @type {() => void} What another token does. */ #renewed = () => {};
  #credentials = 0; // which of the page's tokens is the current one
  /** @type {import("./admin-portal.js").GetToken | null} */ #getToken = null;

  constructor() {
    super();
    this.#root.adoptedStyleSheets = [STYLE];
    const panel = part("div", "panel");
    panel.append(this.#status, this.#error, this.#retry);
    this.#stage.append(panel);
    this.#root.append(this.#stage);
    this.#retry.addEventListener("click", () => this.#again());
    this.#show("idle");
    if (Object.hasOwn(this, "getToken")) {
      // It was set before this module was there, and would hide the accessor.
      const { getToken } = this;
      Reflect.deleteProperty(this, "getToken");
      this.getToken = getToken;
    }
  }

  get getToken() {
    return this.#getToken;
  }

  set getToken(getToken) {
    this.#getToken = getToken;
    this.#signedIn();
  }

  /** Begin anew, with a new link. */
  reload() {
    if (!this.isConnected) return;
    this.#run?.abort();
    const { signal } = (this.#run = new AbortController());
    // Not at once: whoever sets one attribute often sets the next one, too.
    queueMicrotask(() => this.#work(signal).catch((error) => signal.aborted || reportError(error)));
  }

  connectedCallback() {
    this.reload();
  }

  /** `moveBefore` leaves the frame as it is; without this method it would count as removing. */
  connectedMoveCallback() {}

  disconnectedCallback() {
    this.#run?.abort();
    this.#show("idle");
  }

  /** @param {string} name @param {string | null} before @param {string | null} now */
  attributeChangedCallback(name, before, now) {
    if (before === now) return;
    if (name === "token") this.#signedIn();
    else this.reload();
  }

  /** Another token does not disturb a portal that works. */
  #signedIn() {
    this.#credentials += 1;
    this.#renewed();
  }

  /** Opens portal after portal, each with a link of its own, until `signal` ends it. @param {AbortSignal} signal */
  async #work(signal) {
    signal.throwIfAborted();
    if (!this.#organization) return this.#show("idle");
    let [failures, doing] = [0, words.loading];
    for (;;) {
      const credentials = this.#credentials;
      this.#show("loading", doing);
      await visible(signal);
      const failure = await this.#open(signal, failures > 0);
      failures = !failure || failure.steady ? 0 : failures + 1;
      doing = words.loading;
      if (!failure) continue; // somebody wants another
      if (failure.retry && failures <= RETRIES && (failure.wait ?? 0) <= LONGEST_WAIT) {
        const expired = failure.reason === "session-expired";
        doing = expired ? words.renewing : words.again;
        if (!expired) this.#complain(failure, true);
      } else {
        this.#complain(failure, false);
        signal.throwIfAborted(); // by whoever heard that
        this.#show("error", failure.text);
        const refused = ["unauthenticated", "forbidden"].includes(failure.reason) && failures <= RETRIES ? credentials : null;
        if (await this.#asked(signal, refused)) failures = 0;
      }
      signal.throwIfAborted();
      this.#show("loading", doing);
      if (failures) await pause(signal, Math.max((failure.wait ?? 0) * 1000, backoff(failures)));
    }
  }

  /** One portal: why it ended, or undefined when a person wants another. @param {AbortSignal} signal @param {boolean} last */
  async #open(signal, last) {
    try {
      return await this.#session(framable(await this.#location(signal), list(this.getAttribute("origins"))), signal, last);
    } catch (failure) {
      if (failure instanceof Failure) return failure;
      throw failure;
    }
  }

  /** Where a new link leads. @param {AbortSignal} signal @returns {Promise<unknown>} */
  #location(signal) {
    return until(signal, (end, fail, own) => {
      later(own, ANSWER_WITHIN, () => fail(new Failure("unreachable", { retry: true })));
      this.#ask(own).then(end, fail);
    });
  }

  /** @param {AbortSignal} signal @returns {Promise<unknown>} */
  async #ask(signal) {
    const url = address(this.getAttribute("endpoint"), this.#organization);
    const headers = await this.#headers();
    signal.throwIfAborted();
    const features = list(this.getAttribute("features"));
    const body = JSON.stringify(features.length ? { features } : {});
    /** @type {Response} */
    let answer;
    try {
      answer = await fetch(url, { method: "POST", headers, body, signal, cache: "no-store", redirect: "error" });
    } catch {
      throw new Failure("unreachable", { retry: true });
    }
    const { ok, status } = answer;
    if (ok) return (await answer.json().catch(() => null))?.location;
    const wait = seconds(answer.headers.get("Retry-After"));
    throw new Failure(REFUSALS[status] ?? "unavailable", { status, wait, retry: status === 504 || wait !== undefined });
  }

  async #headers() {
    try {
      const token = this.#getToken ? await this.#getToken() : this.getAttribute("token");
      const headers = new Headers({ "Content-Type": "application/json", Accept: "application/json" });
      if (token) headers.set("Authorization", `Bearer ${token}`);
      return headers;
    } catch {
      throw new Failure("unauthenticated"); // without the page's own error: it may quote the token
    }
  }

  /**
   * Shows the portal at `url` and hears what it says; how it ended, or undefined when a person wants another.
   * @param {URL} url @param {AbortSignal} signal @param {boolean} last @returns {Promise<Failure | undefined>}
   */
  #session(url, signal, last) {
    const frame = /** @type {HTMLIFrameElement} */ (part("iframe", "frame"));
    const trusted = new Set([url.origin, ...list(this.getAttribute("origins")).map(originOf)]);
    const began = Date.now();
    let ready = false;
    let loaded = false;
    return until(signal, (end, _, own) => {
      /** @param {Record<string, unknown>} [news] */
      const alive = (news) => {
        if (ready) return;
        ready = true;
        this.#show("ready");
        this.#tell("portal-ready", { expiresAt: moment(news?.expiry) });
      };
      const shown = () => this.#stage.dataset.state === "loading" && this.#show("shown");
      const silence = () => {
        const failure = new Failure("silent", { retry: true });
        if (ready) return;
        if (!loaded && !last) return end(failure); // what has loaded is left alone: in the guides' words no portal is ever ready
        this.#complain(failure, false);
        this.#show("silent", failure.text); // and it stays: somebody may be at work in it
        this.#again = () => end(undefined);
      };
      /** @param {MessageEvent} event */
      const heard = ({ source, origin, data }) => {
        if (!source || source !== frame.contentWindow || !trusted.has(origin)) return;
        const meaning = MEANINGS.get(data?.event_type ?? data?.type);
        const news = data?.data ?? {};
        if (!meaning) return;
        if (meaning === "session-expired") this.#tell(meaning, {});
        if (meaning === "session-expired" || meaning === "load-failed") {
          return end(new Failure(meaning, { retry: true, steady: Date.now() - began > STEADY }));
        }
        alive(news);
        if (meaning === "session-warning") this.#warn(moment(news.expiry));
        else if (meaning !== "portal-ready") this.#tell(meaning, { id: text(news.id), provider: text(news.provider) });
      };
      window.addEventListener("message", heard, { signal: own });
      const here = () => {
        loaded = true;
        later(own, SHOWN_AFTER, shown);
      };
      frame.addEventListener("load", here, { signal: own, once: true });
      // Whoever works in the frame takes the focus from this window: then it is as good as ready, whether it says so or not.
      window.addEventListener("blur", () => this.#root.activeElement === frame && alive(), { signal: own });
      later(own, LOAD_WITHIN, silence);
      this.#embed(frame, url);
    });
  }

  /** @param {HTMLIFrameElement} frame @param {URL} url */
  #embed(frame, url) {
    frame.title = words.title;
    frame.allow = "clipboard-write";
    frame.referrerPolicy = "strict-origin"; // the portal asks who is around it; on which page is not its business
    frame.src = url.href;
    this.#frame = frame;
    this.#stage.append(frame);
  }

  /** @param {Date | null} expiresAt */
  #warn(expiresAt) {
    this.#tell("session-warning", { expiresAt });
    const time = expiresAt?.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    this.#show("warning", time ? filled(words.warningAt, "time", time) : words.warning);
  }

  /**
   * Waits for the button, or for another token than the `refused` one (it is there already if the page answered at once).
   * Whether it was the button. @param {AbortSignal} signal @param {number | null} refused @returns {Promise<boolean>}
   */
  #asked(signal, refused) {
    return until(signal, (end) => {
      this.#again = () => end(true);
      this.#renewed = () => refused !== null && refused !== this.#credentials && end(false);
      this.#renewed();
    });
  }

  /**
   * Shows a state: idle, loading, shown (and not heard of yet), ready, warning, silent, error. Focus that was in here stays in here.
   * @param {string} state @param {string} [said]
   */
  #show(state, said = "") {
    const held = this.#root.activeElement;
    const failed = state === "error";
    this.#stage.dataset.state = state;
    this.#status.textContent = failed ? "" : said;
    this.#error.textContent = failed ? said : "";
    this.#retry.textContent = words.retry;
    if (failed || state === "silent") this.#retry.hidden = false;
    if (held && failed) this.#retry.focus();
    if (held && state === "loading") this.#status.focus();
    if (held && state === "ready") this.#frame?.focus();
    this.#retry.hidden = !failed && state !== "silent";
    if (failed || state === "loading" || state === "idle") this.#unframe();
  }

  #unframe() {
    this.#frame?.remove();
    this.#frame = null;
  }

  /** @param {Failure} failure @param {boolean} retrying */
  #complain({ reason, status, text: message }, retrying) {
    this.#tell("portal-error", { reason, status, message, retrying });
  }

  /** @param {string} type @param {object} detail */
  #tell(type, detail) {
    const organizationId = this.#organization;
    this.dispatchEvent(new CustomEvent(type, { bubbles: true, composed: true, detail: { organizationId, ...detail } }));
  }

  get #organization() {
    return this.getAttribute("organization-id") ?? "";
  }
}

/**
 * An element that a page may style with `::part(name)`.
 * @param {string} tag @param {string} name @param {Record<string, string>} [attributes]
 */
function part(tag, name, attributes = {}) {
  const element = document.createElement(tag);
  for (const [attribute, value] of Object.entries({ part: name, class: name, ...attributes })) element.setAttribute(attribute, value);
  return element;
}

/** @param {string | null} attribute */
const list = (attribute) => (attribute ?? "").split(/[\s,]+/).filter(Boolean);

/** @param {unknown} value */
const text = (value) => (typeof value === "string" ? value : null);

/** @param {unknown} value */
function moment(value) {
  const date = new Date(text(value) ?? NaN);
  return Number.isNaN(date.valueOf()) ? null : date;
}

/** @param {string} sentence @param {string} name @param {string} value */
const filled = (sentence, name, value) => sentence.replace(`{${name}}`, () => value);

/** What a Retry-After asks for, if it is a number (the other form is a date). @param {string | null} header */
const seconds = (header) => (header && /^[0-9]{1,6}$/.test(header) ? Number(header) : undefined);

/** @param {number} failures */
const backoff = (failures) => FIRST_PAUSE * 2 ** (failures - 1) * (1 - Math.random() / 2);

/** Where links come from. @param {string | null} endpoint @param {string} organization */
function address(endpoint, organization) {
  if (!endpoint || !URL.canParse(endpoint, document.baseURI)) throw new Failure("configuration");
  const url = new URL(endpoint, document.baseURI);
  // In clear, everybody on the way would have token and link; and a path of dots is another path.
  if (!secure(url) || /^\.+$/.test(organization)) throw new Failure("configuration");
  url.pathname = `${url.pathname.replace(/\/+$/, "")}/v1/organizations/${encodeURIComponent(organization)}/portal-links`;
  url.search = url.hash = "";
  return url;
}

/** Whether nobody on the way can read along. @param {URL} url */
const secure = ({ protocol, hostname }) => protocol === "https:" || (protocol === "http:" && LOOPBACK.includes(hostname));

/** The origin of a web address; undefined of anything else, whose origin is often written "null". @param {string} address */
function originOf(address) {
  const url = URL.canParse(address) ? new URL(address) : null;
  return url && /^https?:$/.test(url.protocol) ? url.origin : undefined;
}

/**
 * Where a link leads, if that may be shown: nobody reads along, and it is one of `origins`, when there are any.
 * @param {unknown} location @param {string[]} origins
 */
function framable(location, origins) {
  if (typeof location !== "string") throw new Failure("unavailable");
  const url = URL.canParse(location) ? new URL(location) : null;
  if (!url || !secure(url) || (origins.length && !origins.map(originOf).includes(url.origin))) throw new Failure("refused-location");
  return url;
}

/**
 * What `start` comes to; when `signal` aborts, its reason. All that `start` sets up ends with `own`, which aborts once that is settled.
 * @template T
 * @param {AbortSignal} signal
 * @param {(end: (value: T) => void, fail: (error: unknown) => void, own: AbortSignal) => void} start
 * @returns {Promise<T>}
 */
function until(signal, start) {
  const own = new AbortController();
  /** @type {Promise<T>} */
  const settled = new Promise((resolve, reject) => {
    signal.throwIfAborted();
    signal.addEventListener("abort", () => reject(signal.reason), { signal: own.signal });
    start(resolve, reject, own.signal);
  });
  return settled.finally(() => own.abort());
}

/** Does it then, unless `signal` aborts before. @param {AbortSignal} signal @param {number} milliseconds @param {() => void} act */
function later(signal, milliseconds, act) {
  const timer = setTimeout(act, milliseconds);
  signal.addEventListener("abort", () => clearTimeout(timer));
}

/** @param {AbortSignal} signal @param {number} milliseconds @returns {Promise<void>} */
const pause = (signal, milliseconds) => until(signal, (end, _, own) => later(own, milliseconds, () => end(undefined)));

/** Waits for somebody to look: a page that was left open asks for no links. @param {AbortSignal} signal */
async function visible(signal) {
  if (!document.hidden) return;
  await until(signal, (end, _, own) => {
    document.addEventListener("visibilitychange", () => document.hidden || end(undefined), { signal: own });
  });
}

customElements.get("scalekit-admin-portal") ?? customElements.define("scalekit-admin-portal", ScalekitAdminPortalElement);
