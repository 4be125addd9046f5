// The company page: what the emulator's directories hold, what can be done to it, and what the service says of it.

import { draw, h } from "./company/elements.js";
import { ask, Away, inTurn, loop, Refused, token } from "./company/control.js";
import { desk, field, form, hush, note, say, settle } from "./company/desk.js";
import { directories } from "./company/directories.js";
import * as people from "./company/people.js";
import * as groups from "./company/groups.js";
import * as deliveries from "./company/deliveries.js";
import * as switches from "./company/switches.js";
import * as play from "./company/play.js";
import * as portal from "./company/portal.js";

const VIEWS = { people, groups, deliveries, switches, play, portal };
const DEFAULT = "people";
const FILE = ".provisioning/emulator/token";

let shown = route();
let loaded = null; // what the view holds: version, view, and what it wants

/** The view that the fragment names. A token in it is kept, and gone from the address bar. */
function route() {
  const fragment = location.hash.slice(1);
  const said = new URLSearchParams(fragment.includes("=") ? fragment : { view: fragment });
  const view = Object.hasOwn(VIEWS, said.get("view") ?? "") ? said.get("view") : DEFAULT;
  if (said.has("token")) {
    token.keep(said.get("token"));
    history.replaceState(null, "", `#${view}`);
  }
  return view;
}

desk.redraw = () => draw(document.getElementById("page"), page());

desk.refresh = loop(async () => {
  if (!token.get()) return desk.redraw();
  try {
    await inTurn(look);
    desk.connected = true;
    hush("page");
  } catch (error) {
    failed(error);
  }
  return desk.redraw();
}, () => (document.hidden ? 10_000 : 1000));

async function look() {
  settle(await ask("state"));
  const view = VIEWS[shown];
  const wanted = JSON.stringify([desk.state.version, shown, view.wants()]);
  if (wanted !== loaded) await view.load();
  loaded = wanted;
}

function failed(error) {
  loaded = null;
  if (error instanceof Away) desk.connected = false;
  else if (error instanceof Refused && error.status === 401) {
    token.drop();
    desk.state = null;
    say("token", "error", error.message);
  } else say("page", "error", error.message);
}

window.addEventListener("hashchange", () => {
  shown = route();
  desk.redraw();
  desk.refresh();
});
document.addEventListener("visibilitychange", () => desk.refresh());

function page() {
  if (!token.get()) return [entrance()];
  if (!desk.state) return [lost(), h("main", { key: "wait" }, note("page"), h("p", { class: "empty" }, "One moment …"))];
  return [
    h("a", { class: "skip", href: "#main", onclick: toMain }, "Skip to the content"),
    header(),
    lost(),
    h("main", { key: "main", id: "main", tabindex: "-1" }, note("page"), h("div", { key: shown, class: "view" }, VIEWS[shown].view())),
  ];
}

function toMain(event) {
  event.preventDefault();
  document.getElementById("main").focus();
}

function lost() {
  if (desk.connected) return null;
  return h("p", { key: "lost", class: "banner", role: "alert" }, "The connection to the emulator is lost. Trying again every second …");
}

function header() {
  const { service } = desk.state;
  return h(
    "header",
    { key: "header" },
    h(
      "div",
      { class: "brand" },
      h("h1", {}, "Company directory"),
      h("p", { class: "quiet" }, "the local Scalekit", service ? [" · for ", h("a", { href: service, rel: "noopener" }, service)] : null),
    ),
    directories(),
    h("nav", { class: "tabs", "aria-label": "Views" }, Object.keys(VIEWS).map(tab)),
  );
}

function tab(name) {
  const { given_up: lostOnes, waiting } = desk.state.deliveries;
  const count = name === "deliveries" ? lostOnes || waiting : 0;
  const badge = count ? h("span", { class: lostOnes ? "count bad" : "count" }, lostOnes ? `${count} given up` : `${count} waiting`) : null;
  const label = name[0].toUpperCase() + name.slice(1);
  return h("a", { key: name, href: `#${name}`, "aria-current": name === shown ? "page" : null }, label, badge && " ", badge);
}

function entrance() {
  const enter = async (values) => {
    token.keep(values.token);
    hush("token");
    desk.refresh();
    return true;
  };
  return h(
    "main",
    { class: "entrance", key: "entrance" },
    h("h1", {}, "Company directory"),
    h("p", {}, "This page drives the local Scalekit, so it wants that emulator's token."),
    h("p", {}, "Open the link that ", h("code", {}, "./run"), " printed, or paste the token from ", h("code", {}, FILE), "."),
    form(
      { "aria-label": "Enter" },
      enter,
      field("Token", { type: "password", name: "token", required: true, autocomplete: "off", spellcheck: "false" }),
      h("button", { type: "submit", class: "primary" }, "Open"),
    ),
    note("token"),
  );
}

desk.redraw();
