// What the whole page has in common: what the emulator last said, what is chosen, and what became of each thing that was tried.

import { h } from "./elements.js";
import { tell } from "./control.js";

export const PROVIDERS = { OKTA: "Okta", MICROSOFT_AD: "Entra ID", GOOGLE: "Google", JUMPCLOUD: "JumpCloud" };

/** `state` is the emulator's; `organization` and `directory` are the chosen ones of it, or null. */
export const desk = {
  state: null,
  organization: null,
  directory: null,
  connected: true,
  redraw: () => {},
  refresh: () => {},
};

const chosen = { organization: sessionStorage.getItem("organization"), directory: sessionStorage.getItem("directory") };

/** Choose an organization or a directory by its id. */
export function choose(what, id) {
  chosen[what] = id;
  sessionStorage.setItem(what, id);
  settle();
  desk.redraw();
  desk.refresh();
}

/** Take over a new state. What was chosen stays while it is there. */
export function settle(state = desk.state) {
  desk.state = state;
  const all = state.organizations;
  desk.organization = all.find(({ id }) => id === chosen.organization) ?? all[0] ?? null;
  const directories = desk.organization?.directories ?? [];
  const open = directories.find(({ enabled }) => enabled) ?? directories[0] ?? null;
  desk.directory = directories.find(({ id }) => id === chosen.directory) ?? open;
}

const DONE_FOR = 10_000; // milliseconds

const notes = new Map();
const LASTING = new Set(["token", "page"]);
const busy = new Set();

/** Whether something is under way at this place. */
export const isBusy = (place) => busy.has(place);

/** What became of the last try at this place, to be shown there. */
export function note(place) {
  const said = notes.get(place);
  return said ? h("p", { key: `note ${place}`, class: `note ${said.kind}` }, said.text) : null;
}

/** Say it at a place, and to a screen reader. What is merely done is not said for long. */
export function say(place, kind, text) {
  const said = { kind, text };
  notes.set(place, said);
  document.getElementById("said").textContent = text;
  desk.redraw();
  if (kind === "done") setTimeout(() => notes.get(place) === said && hush(place), DONE_FOR);
}

/** Forget what was said there. */
export function hush(place) {
  if (notes.delete(place)) desk.redraw();
}

/** Do an action; its result, or null when it was refused, which is then said at the place. `done`: what to say when it succeeds. */
export async function act(place, action, body, done) {
  if (busy.has(place)) return null;
  busy.add(place);
  notes.delete(place);
  desk.redraw();
  try {
    const result = await tell(action, body);
    // What was refused before may be possible now: old refusals would only be wrong.
    for (const [elsewhere, said] of notes) if (said.kind === "error" && !LASTING.has(elsewhere)) notes.delete(elsewhere);
    if (done) say(place, "done", done);
    return result;
  } catch (error) {
    say(place, "error", error.message);
    return null;
  } finally {
    busy.delete(place);
    desk.redraw();
    desk.refresh();
  }
}

/** A button. While its place is busy it does nothing, and keeps the focus. */
export function button(label, place, onclick, more = {}) {
  const waits = isBusy(place);
  return h("button", { type: "button", "aria-disabled": String(waits), onclick: (event) => waits || onclick(event), ...more }, label);
}

/** Put the focus into what a button has just folded out beside it; `back` takes it from there to the button, when that is over. */
export function enter(opener) {
  opener.closest("li").querySelector(".editor :is(input, button)")?.focus();
}

export function back(opener) {
  if (document.activeElement === document.body) opener.focus();
}

/** A form: `send(values)` is called with its fields; when it returns something, what was sent is cleared away, unless somebody types on. */
export function form(properties, send, ...children) {
  const onsubmit = async (event) => {
    event.preventDefault();
    const sent = event.currentTarget;
    const before = fields(sent);
    const done = await send(before);
    if (done && JSON.stringify(before) === JSON.stringify(fields(sent))) sent.reset();
  };
  return h("form", { autocomplete: "off", ...properties, onsubmit }, children);
}

/** A labelled field. */
export function field(label, properties) {
  return h("label", { class: "field", key: properties.name }, h("span", {}, label), h("input", properties));
}

/** The values of a form by name; of checkboxes that share one, those that are checked. */
function fields(form) {
  const values = {};
  for (const { name, type, value, checked } of form.elements) {
    if (!name) continue;
    if (type !== "checkbox") values[name] = value.trim();
    else if (value === "on") values[name] = checked;
    else values[name] = [...(values[name] ?? []), ...(checked ? [value] : [])];
  }
  return values;
}
