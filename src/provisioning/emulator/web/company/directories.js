// At the top: which organization and which of its directories, and what can be done to these as a whole.

import { h } from "./elements.js";
import { act, button, choose, desk, field, form, note, PROVIDERS } from "./desk.js";

let deleting = null; // the directory whose deletion is to be confirmed

/** The picker of organizations, and the chosen one's directories. */
export function directories() {
  const { state, organization } = desk;
  return h(
    "div",
    { class: "places" },
    h(
      "div",
      { class: "bar" },
      h("label", { class: "field across" }, h("span", {}, "Organization"), organizations(state.organizations, organization)),
      organization ? h("code", { class: "quiet" }, organization.id) : null,
      organization ? h("span", { class: "quiet" }, organization.sso ? "SSO on" : "SSO off") : null,
      adding(),
    ),
    organization ? h("ul", { class: "directories", "aria-label": "Directories" }, organization.directories.map(card)) : null,
    note("places"),
  );
}

function organizations(all, chosen) {
  const onchange = (event) => choose("organization", event.currentTarget.value);
  return h("select", { value: chosen?.id ?? "", onchange }, all.map(({ id, name }) => h("option", { key: id, value: id }, name)));
}

function card(directory) {
  const { id, provider, enabled, users, active, groups } = directory;
  const name = PROVIDERS[provider] ?? provider;
  const here = id === desk.directory?.id;
  const place = `directory ${id}`;
  const counts = `${active.toLocaleString("en")} active of ${users.toLocaleString("en")} · ${groups.toLocaleString("en")} groups`;
  const step = enabled ? "disable" : "enable";
  const turn = () => act(place, `${step}-directory`, { directory: id }, `The ${name} directory is ${step}d.`);
  return h(
    "li",
    { key: id, class: here ? "place here" : "place", "aria-label": `${name} ${id}` },
    h(
      "button",
      { type: "button", class: "pick", "aria-pressed": String(here), onclick: () => choose("directory", id) },
      h("strong", {}, name),
      h("span", { class: `state ${enabled ? "active" : "gone"}` }, enabled ? "enabled" : "disabled"),
      h("span", { class: "quiet" }, counts),
      h("code", { class: "quiet" }, id),
    ),
    h(
      "div",
      { class: "doings" },
      button(enabled ? "Disable" : "Enable", place, turn, { key: "switch", class: "plain" }),
      button("Delete", place, () => confirm(id), { key: "delete", class: "plain", "aria-expanded": String(deleting === id) }),
    ),
    deleting === id ? confirmation(id, name, place) : null,
    note(place),
  );
}

function confirm(id) {
  deleting = deleting === id ? null : id;
  desk.redraw();
}

function confirmation(id, name, place) {
  const remove = async () => {
    if (await act(place, "delete-directory", { directory: id })) confirm(id);
  };
  return h(
    "div",
    { class: "editor", key: "confirm" },
    h("p", {}, `Delete the ${name} directory with everybody in it? Scalekit sends nothing about that: only reconciling finds out.`),
    h(
      "div",
      { class: "actions" },
      button("Delete for good", place, remove, { class: "danger" }),
      h("button", { type: "button", class: "plain", onclick: () => confirm(id) }, "Keep it"),
    ),
  );
}

function adding() {
  const addDirectory = async ({ provider }) => {
    const body = { organization: desk.organization.id, provider };
    const added = await act("places", "add-directory", body, `The ${PROVIDERS[provider]} directory is there.`);
    if (added) choose("directory", added.id);
  };
  const addOrganization = async ({ name }) => {
    const added = await act("places", "add-organization", { name }, `The organization ${name} is there.`);
    if (added) choose("organization", added.id);
    return added;
  };
  const providers = Object.entries(PROVIDERS).map(([value, name]) => h("option", { key: value, value }, name));
  const provider = h("label", { class: "field" }, h("span", {}, "Provider"), h("select", { name: "provider", initial: "OKTA" }, providers));
  return h(
    "details",
    { class: "fold adding" },
    h("summary", {}, "Add …"),
    desk.organization
      ? form(
          { key: "directory", class: "inline", "aria-label": "Add a directory" },
          addDirectory,
          provider,
          button("Add directory", "places", () => {}, { type: "submit" }),
        )
      : null,
    form(
      { key: "organization", class: "inline", "aria-label": "Add an organization" },
      addOrganization,
      field("New organization", { name: "name", required: true, placeholder: "Acme" }),
      button("Add organization", "places", () => {}, { type: "submit" }),
    ),
  );
}
