// The admin portal: opened as a customer's administrator would, and how it talks to the page that embeds it.

import { h } from "./elements.js";
import { act, button, desk, field, form, note } from "./desk.js";

const DIALECTS = {
  official: "official: {event_type: ORGANIZATION_DIRECTORY_ENABLED, …}",
  guide: "the guides': {type: SCIM_CONFIGURED}",
};

let waiting = null; // a link that the browser would not open by itself

export const wants = () => "";
export const load = async () => {};

/** The view. */
export function view() {
  return [h("div", { class: "bar" }, h("h2", {}, "Portal")), opening(), dialect(), origins()];
}

function opening() {
  const { organization } = desk;
  if (!organization) return h("p", { class: "empty" }, "There is no organization yet: add one above.");
  return h(
    "section",
    { class: "card" },
    h("h3", {}, `The admin portal of ${organization.name}`),
    h("p", { class: "quiet" }, "A link opens once, and within a minute. Whoever has it may change the organization's SSO and directory."),
    button("Open in a new tab", "open portal", open, { class: "primary" }),
    note("open portal"),
    waiting ? h("a", { href: waiting, target: "_blank", rel: "noopener noreferrer", onclick: forget }, "Open the portal") : null,
  );
}

async function open() {
  // Opened at once: after the answer the browser would take it for an advertisement. The page's opener policy keeps it from reaching back.
  const tab = window.open("about:blank");
  const link = await act("open portal", "portal-link", { organization: desk.organization.id });
  if (!link) tab?.close();
  else if (tab) tab.location.replace(link.location);
  else waiting = link.location;
  desk.redraw();
}

function forget() {
  setTimeout(() => {
    waiting = null;
    desk.redraw();
  });
}

function dialect() {
  const onchange = (event) => act("dialect", "portal", { dialect: event.currentTarget.value }, "The portal speaks it from now on.");
  const options = Object.entries(DIALECTS).map(([value, words]) => h("option", { key: value, value }, words));
  return h(
    "section",
    { class: "card" },
    h("h3", {}, "Dialect of its events"),
    h("p", { class: "quiet" }, "Scalekit's documentation shows two. A page that embeds the portal should understand both."),
    h("label", { class: "field" }, h("span", {}, "Dialect"), h("select", { value: desk.state.dialect, onchange }, options)),
    note("dialect"),
  );
}

function origins() {
  const now = desk.state.embedding_origins.join(" ");
  const send = ({ embedding_origins }) => {
    const list = embedding_origins.split(/[\s,]+/).filter(Boolean);
    return act("origins", "portal", { embedding_origins: list }, "These may embed it from now on.").then(() => null);
  };
  return h(
    "section",
    { class: "card" },
    h("h3", {}, "Who may embed it"),
    h("p", { class: "quiet" }, "Origins, separated by spaces. In a page of any other the frame stays blank, as with Scalekit."),
    form(
      { class: "inline", "aria-label": "Embedding origins" },
      send,
      field("Origins", { name: "embedding_origins", initial: now, placeholder: "http://127.0.0.1:8000" }),
      button("Save", "origins", () => {}, { type: "submit" }),
    ),
    note("origins"),
  );
}
