// The groups of the chosen directory, and the roles that they give.

import { h } from "./elements.js";
import { ask } from "./control.js";
import { act, back, button, desk, enter, field, form, hush, note } from "./desk.js";

let groups = [];
let open = null; // what is being done to which group: {what, group, opener}

export const wants = () => desk.directory?.id;

/** Fetches the groups. */
export async function load() {
  if (desk.directory) groups = (await ask(`groups?directory=${desk.directory.id}`)).data;
}

/** The view. */
export function view() {
  if (!desk.directory) return [h("p", { class: "empty" }, "This organization has no directory yet: add one above.")];
  const here = groups.filter(({ directory_id }) => directory_id === desk.directory.id);
  const gone = open && open.group.directory_id === desk.directory.id && !here.some(({ id }) => id === open.group.id);
  const add = ({ name }) => act("add group", "add-group", { name, directory: desk.directory.id }, `The group ${name} is there.`);
  return [
    h("div", { class: "bar" }, h("h2", {}, "Groups")),
    form(
      { class: "card inline", "aria-label": "Add a group" },
      add,
      field("New group", { name: "name", required: true, placeholder: "Engineering" }),
      button("Add group", "add group", () => {}, { type: "submit", class: "primary" }),
      note("add group"),
    ),
    h("p", { class: "quiet" }, `People without a mapped group have the role ${desk.directory.default_role}.`),
    here.length ? null : h("p", { class: "empty" }, "There are no groups in this directory yet."),
    h("ul", { class: "rows groups", "aria-label": "Groups" }, [...here, ...(gone ? [open.group] : [])].map(row)),
    h("datalist", { id: "roles" }, [...new Set(Object.values(desk.directory.roles))].map((value) => h("option", { key: value, value }))),
  ];
}

function row(group) {
  const place = `group ${group.id}`;
  const start = (what) => ({ currentTarget: opener }) => {
    open = open?.group.id === group.id && open.what === what ? null : { what, group, opener };
    hush(place);
    desk.redraw();
    enter(opener);
  };
  const doing = (label, what, about) => {
    const expanded = open?.group.id === group.id && open.what === what;
    return button(label, place, start(what), { key: what, class: "plain", "aria-label": about, "aria-expanded": String(expanded) });
  };
  return h(
    "li",
    { key: group.id, class: "row", "aria-label": group.name },
    h(
      "div",
      {},
      h("h3", {}, group.name),
      h("p", { class: "quiet" }, `${group.members.toLocaleString("en")} ${group.members === 1 ? "member" : "members"}`),
    ),
    h("ul", { class: "chips" }, group.role ? h("li", { class: "role" }, group.role) : h("li", {}, "no role")),
    h(
      "div",
      { class: "doings" },
      doing("Map to a role", "map", `Map ${group.name} to a role`),
      doing("Rename", "rename", `Rename ${group.name}`),
      doing("Delete", "delete", `Delete ${group.name}`),
    ),
    open?.group.id === group.id ? editor(open, place) : null,
    note(place),
  );
}

const EDITORS = { map, rename, delete: remove };

function editor({ what, group }, place) {
  const { action, label, danger, done, fields, body } = EDITORS[what](group);
  const send = async (values) => {
    const mine = open;
    const result = await act(place, action, { group: group.id, ...body(values) }, done(values));
    if (result && open === mine) close();
    return result;
  };
  return form(
    { key: what, class: "editor", "aria-label": `${label} ${group.name}` },
    send,
    fields,
    h(
      "div",
      { class: "actions" },
      button(label, place, () => {}, { type: "submit", class: danger ? "danger" : "primary" }),
      h("button", { type: "button", class: "plain", onclick: close }, "Cancel"),
    ),
  );
}

function close() {
  const { opener } = open;
  open = null;
  desk.redraw();
  back(opener);
}

function map(group) {
  const fields = [
    field("Role", { name: "role", initial: group.role ?? "", list: "roles", placeholder: "none of its own" }),
    h(
      "label",
      { class: "check", key: "resend" },
      h("input", { type: "checkbox", name: "resend", initial: true, "aria-describedby": "about-resend" }),
      "Scalekit sends the people again",
    ),
    h("small", { id: "about-resend" }, "Whether it really does is not documented. If not, only reconciling finds the new role."),
  ];
  const body = ({ role, resend }) => ({ role: role || null, resend });
  const done = ({ role }) => (role ? `${group.name} gives the role ${role}.` : `${group.name} gives no role.`);
  return { action: "map-role", label: "Save role", fields, body, done };
}

function rename(group) {
  const fields = field("Name", { name: "name", initial: group.name, required: true });
  return { action: "rename-group", label: "Rename", fields, body: ({ name }) => ({ name }), done: ({ name }) => `Now called ${name}.` };
}

function remove(group) {
  const fields = h("p", {}, `Delete ${group.name}? Each of its ${group.members} members is sent again without it.`);
  return { action: "delete-group", label: "Delete group", danger: true, fields, body: () => ({}), done: () => `${group.name} is deleted.` };
}
