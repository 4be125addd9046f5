// What the service says about the people on the page, beside what the directory says of them.

import { h } from "./elements.js";
import { ask, loop, token } from "./control.js";
import { desk } from "./desk.js";

const AGAIN_AFTER = 5000; // milliseconds: a service that was away comes back without any change here

let watched = [];
let answers = new Map(); // directory user id -> the service's user, or null
let error = null;
let asked = { about: null, at: 0 };

/** From now on, know what the service says of these directory users. */
export function watch(ids) {
  watched = [...new Set(ids)].slice(0, 100);
  refresh();
}

const refresh = loop(async () => {
  const about = JSON.stringify([desk.state?.version, watched]);
  if (!token.get() || !desk.state?.service || !watched.length) return;
  if (about === asked.about && Date.now() - asked.at < AGAIN_AFTER) return;
  const ids = watched;
  try {
    const said = await ask(`service?${new URLSearchParams(ids.map((id) => ["user", id]))}`);
    answers = new Map(Object.entries(said.users));
    error = said.error;
  } catch (failure) {
    error = failure.message;
  }
  asked = { about, at: Date.now() };
  desk.redraw();
}, () => (document.hidden ? 10_000 : 1000));

/** How the directory's user (null when it is not known here) and the service's compare: a verdict and the words for it. */
function verdict(id, user) {
  if (!desk.state.service) return ["away", "No service is being asked"];
  if (error) return ["away", "Unreachable"];
  if (!answers.has(id)) return ["asking", "Asking …"];
  const theirs = answers.get(id);
  if (!user) return ["neutral", theirs ? "Says now" : "Does not know this person"];
  const fields = differences(user, theirs);
  return fields.length ? ["differs", theirs ? `Differs: ${fields.join(", ")}` : "Not known there yet"] : ["equal", "Same as the directory"];
}

function differences(user, theirs) {
  const active = user.state === "active";
  if (!theirs) return user.state === "gone" ? [] : ["person"];
  const alone = theirs.directory_users.length === 1;
  const behind = theirs.directory_users.find(({ id }) => id === user.id);
  if ((behind?.active ?? false) !== active) return ["state"];
  const counts = alone || desk.directory?.id !== user.directory_id || desk.directory.enabled;
  if (!active || !counts) return [];
  // Several records can stand behind one user, who then has what any of them gives.
  const same = (ours, others) => ours.every((each) => others.includes(each)) && (!alone || ours.length === others.length);
  const named = (groups) => groups.map(({ id, name }) => `${id} ${name}`);
  return [
    theirs.active ? null : "state",
    alone && (theirs.given_name ?? "") !== user.given_name ? "given name" : null,
    alone && (theirs.family_name ?? "") !== user.family_name ? "family name" : null,
    alone && theirs.email !== user.email ? "e-mail" : null,
    same(named(user.groups), named(theirs.groups)) ? null : "groups",
    same(user.roles, theirs.roles) ? null : "roles",
  ].filter(Boolean);
}

/** The panel that shows it. */
export function inTheService(id, user) {
  const [kind, words] = verdict(id, user);
  const theirs = error || !desk.state.service ? null : answers.get(id);
  return h(
    "section",
    { class: `service ${kind}`, "data-verdict": kind, "aria-label": "In the service" },
    h("h4", {}, "In the service", h("span", { class: "verdict" }, words)),
    kind === "away" && error ? h("p", { class: "quiet" }, error) : null,
    theirs ? facts(theirs.active ? "active" : "inactive", theirs.groups, theirs.roles) : null,
    theirs && (theirs.email !== user?.email || kind === "differs") ? h("p", { class: "quiet address" }, who(theirs)) : null,
  );
}

const who = ({ name, email }) => [name, email].filter(Boolean).join(" · ");

/** State, groups and roles, as chips. */
export function facts(state, groups, roles) {
  return h(
    "ul",
    { class: "chips" },
    h("li", { class: `state ${state}` }, state),
    groups.map(({ id, name }) => h("li", { key: `group ${id}`, class: "group", title: "group" }, name)),
    roles.map((role) => h("li", { key: `role ${role}`, class: "role", title: "role" }, role)),
  );
}
