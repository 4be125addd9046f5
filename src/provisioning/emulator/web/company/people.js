// The people of the chosen directory: find, hire, change, and see beside each what the service says.

import { h } from "./elements.js";
import { ask } from "./control.js";
import { act, back, button, desk, enter, field, form, hush, note } from "./desk.js";
import { facts, inTheService, watch } from "./service.js";

const PAGE = 50;

let query = "";
let offset = 0;
let found = { data: [], total: 0 };
let groups = [];
let open = null; // what is being done to whom: {what, user, opener}

const parameters = () => ({ directory: desk.directory?.id ?? "", q: query, limit: PAGE, offset });

/** What the list depends on, beside the version. */
export const wants = () => JSON.stringify(parameters());

/** Fetches the page of people and the groups they can be in. */
export async function load() {
  if (!desk.directory) return;
  const wanted = parameters();
  const [people, all] = [await ask(`users?${new URLSearchParams(wanted)}`), await ask(`groups?directory=${wanted.directory}`)];
  if (!people.data.length && offset) {
    offset = Math.max(0, Math.floor((people.total - 1) / PAGE) * PAGE);
    desk.refresh();
    return;
  }
  found = people;
  groups = all.data;
  watch(found.data.map(({ id }) => id));
}

/** The view. */
export function view() {
  if (!desk.directory) return [h("p", { class: "empty" }, "This organization has no directory yet: add one above.")];
  const here = found.data.filter(({ directory_id }) => directory_id === desk.directory.id);
  // Whoever is being edited stays, also when the list moves on.
  const gone = open && open.user.directory_id === desk.directory.id && !here.some(({ id }) => id === open.user.id);
  const people = gone ? [...here, open.user] : here;
  return [
    h(
      "div",
      { class: "bar" },
      h("h2", {}, "People"),
      h("label", { class: "search" }, h("span", { class: "heard-only" }, "Search people"), search()),
    ),
    hiring(),
    people.length ? null : h("p", { class: "empty" }, query ? `Nobody matches “${query}”.` : "Nobody is in this directory yet."),
    h("ul", { class: "rows people", "aria-label": "People" }, people.map(person)),
    pages(),
  ];
}

function search() {
  const oninput = (event) => {
    query = event.currentTarget.value.trim();
    offset = 0;
    desk.refresh();
  };
  return h("input", { type: "search", placeholder: "Search people", initial: query, oninput });
}

function hiring() {
  const send = async (values) => {
    const body = { directory: desk.directory.id, ...values, groups: values.groups ?? [] };
    if (!body.email) delete body.email;
    return act("hire", "hire", body, `${values.given_name} ${values.family_name} is hired.`);
  };
  return h(
    "details",
    { class: "card fold", key: "hire" },
    h("summary", {}, "Hire somebody"),
    form(
      { "aria-label": "Hire" },
      send,
      h(
        "div",
        { class: "fields" },
        field("Given name", { name: "given_name", required: true }),
        field("Family name", { name: "family_name", required: true }),
        field("E-mail", { name: "email", inputmode: "email", placeholder: "made from the name" }),
        field("Title", { name: "title" }),
        field("Department", { name: "department" }),
      ),
      groups.length ? membership([]) : null,
      h("div", { class: "actions" }, button("Hire", "hire", () => {}, { type: "submit", class: "primary" }), note("hire")),
    ),
  );
}

function membership(now) {
  return h(
    "fieldset",
    { class: "choices" },
    h("legend", {}, "Groups"),
    groups.map(({ id, name }) =>
      h("label", { key: id }, h("input", { type: "checkbox", name: "groups", value: id, initial: now.includes(id) }), name),
    ),
  );
}

function person(user) {
  const place = `user ${user.id}`;
  const name = `${user.given_name} ${user.family_name}`.trim() || user.email;
  return h(
    "li",
    { key: user.id, class: `row ${user.state}`, "aria-label": name },
    h(
      "div",
      { class: "who" },
      h("span", { class: `face hue-${hue(user.id)}`, "aria-hidden": "true" }, initials(user)),
      h(
        "div",
        {},
        h("h3", {}, name),
        h("p", { class: "quiet address" }, user.email),
        h("p", { class: "quiet" }, [user.title, user.department].filter(Boolean).join(" · ")),
      ),
    ),
    h("section", { class: "directory", "aria-label": "In the directory" }, h("h4", {}, "In the directory"), standing(user)),
    inTheService(user.id, user),
    h("div", { class: "doings" }, doings(user, name).map(([label, what]) => doing(label, what, user, place, name))),
    open?.user.id === user.id ? editor(open, place, name) : null,
    note(place),
  );
}

const standing = (user) => [
  facts(user.state, user.groups, user.state === "active" ? user.roles : []),
  user.listed ? null : h("p", { class: "quiet" }, "Scalekit has deleted this person."),
];

const initials = ({ given_name, family_name }) => [given_name, family_name].map((name) => [...name][0] ?? "").join("").toUpperCase();

const hue = (id) => [...id].reduce((sum, letter) => sum + letter.charCodeAt(0), 0) % 6;

const EDITORS = { rename, move, regroup, purge };

function doings({ state }) {
  const change = [["Rename", "rename"], ["Move", "move"], ["Groups", "regroup"]];
  if (state === "gone") return [["Restore", "restore"], ["Purge", "purge"]];
  return [...change, state === "active" ? ["Suspend", "suspend"] : ["Restore", "restore"], ["Fire", "fire"], ["Purge", "purge"]];
}

function doing(label, what, user, place, name) {
  const start = ({ currentTarget: opener }) => {
    if (!EDITORS[what]) return act(place, what, { user: user.id }, `${name}: ${DONE[what]}.`);
    open = open?.user.id === user.id && open.what === what ? null : { what, user, opener };
    hush(place);
    desk.redraw();
    return enter(opener);
  };
  const editing = open?.user.id === user.id && open.what === what;
  const more = { key: what, class: "plain", "aria-label": `${label} ${name}` };
  return button(label, place, start, EDITORS[what] ? { ...more, "aria-expanded": String(editing) } : more);
}

const DONE = { suspend: "suspended", restore: "restored", fire: "fired" };

/** The form for what is being done; it goes when that is done. */
function editor({ what, user }, place, name) {
  const send = async (action, body, done) => {
    const mine = open;
    const result = await act(place, action, { user: user.id, ...body }, done);
    if (result && open === mine) close();
    return result;
  };
  const cancel = h("button", { type: "button", class: "plain", onclick: close }, "Cancel");
  const { label, danger, body, fields } = EDITORS[what](user, name);
  const submit = button(label, place, () => {}, { type: "submit", class: danger ? "danger" : "primary" });
  const title = `${what} ${name}`;
  return form(
    { key: what, class: "editor", "aria-label": title },
    (values) => send(what, body(values), `${name}: done.`),
    fields,
    h("div", { class: "actions" }, submit, cancel),
  );
}

function close() {
  const { opener } = open;
  open = null;
  desk.redraw();
  back(opener);
}

function rename(user) {
  const fields = h(
    "div",
    { class: "fields" },
    field("Given name", { name: "given_name", initial: user.given_name, required: true }),
    field("Family name", { name: "family_name", initial: user.family_name, required: true }),
    field("E-mail", { name: "email", inputmode: "email", initial: user.email, required: true }),
  );
  return { label: "Rename", fields, body: (values) => changed(values, user) };
}

function move(user) {
  const fields = h(
    "div",
    { class: "fields" },
    field("Department", { name: "department", initial: user.department, required: true }),
    field("Title", { name: "title", initial: user.title }),
  );
  return { label: "Move", fields, body: (values) => values };
}

function regroup(user) {
  const before = user.groups.map(({ id }) => id);
  const body = ({ groups: after = [] }) => ({
    add: after.filter((id) => !before.includes(id)),
    remove: before.filter((id) => !after.includes(id)),
  });
  const fields = groups.length ? membership(before) : h("p", { class: "quiet" }, "There are no groups yet.");
  return { label: "Save groups", fields, body };
}

function purge(user, name) {
  const fields = h("p", {}, `Purge ${name} for good? The directory forgets the person; a new hire is somebody else.`);
  return { label: "Purge for good", danger: true, fields, body: () => ({}) };
}

const changed = (values, user) => Object.fromEntries(Object.entries(values).filter(([name, value]) => value !== user[name]));

function pages() {
  const { total } = found;
  const turn = (by) => () => {
    offset += by;
    desk.refresh();
  };
  const end = Math.min(offset + PAGE, total);
  return h(
    "nav",
    { class: "pages", "aria-label": "Pages of people" },
    h("span", { class: "quiet" }, total ? `${offset + 1}–${end} of ${total.toLocaleString("en")}` : ""),
    offset > 0 ? h("button", { type: "button", key: "back", onclick: turn(-PAGE) }, "Previous") : null,
    end < total ? h("button", { type: "button", key: "on", onclick: turn(PAGE) }, "Next") : null,
  );
}
