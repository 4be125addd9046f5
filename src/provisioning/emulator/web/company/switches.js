// What goes wrong on the way to the service, and at the API that the service calls.

import { h } from "./elements.js";
import { act, button, desk, note } from "./desk.js";

const SWITCHES = [
  ["duplicates", "Duplicates", { min: 0, max: 1, step: 0.05 }, "The share of deliveries that arrive once more."],
  ["drop", "Drop", { min: 0, max: 1, step: 0.05 }, "The share of attempts that are lost: half on their way, half with the answer."],
  ["reorder", "Reorder", { min: 0, max: 3600, step: 0.5 }, "Seconds: each delivery is held back for a random time of up to so many."],
  ["delay", "Delay", { min: 0, max: 3600, step: 0.5 }, "Seconds by which each attempt is late."],
  ["retry_scale", "Retry scale", { min: 0, max: 1, step: "any" }, "1 waits 27.6 hours in all, as Scalekit; 0.001 waits 99 seconds."],
  ["at_once", "At once", { min: 1, max: 64, step: 1 }, "How many deliveries are under way at a time."],
];

const COMMON = {
  hang: "says nothing until this is changed",
  rate_limit: "too many requests",
  away: "unavailable",
  refuse: "refuses",
};
const LIST = {
  cut_short: "ends after 40 %",
  empty: "is empty",
  later_pages_fail: "unavailable after the first page",
  later_pages_fail_twice: "unavailable after the first page, twice",
  same_page: "leads to the same page for ever",
};
const DOORS = {
  oauth: ["Tokens", { ...COMMON, missing: "is not there", unreadable: "answers with a page", expired: "gives expired tokens" }],
  api: [
    "Directory API",
    {
      ...COMMON,
      link_empty: "links without an address",
      link_without_expiry: "links without an expiry",
      link_elsewhere: "links to elsewhere",
    },
  ],
  directories: ["Directories", { total_one_more: "count one more than they list", total_zero: "count nobody" }],
  users: [
    "List of users",
    { ...LIST, detail_missing: "without the details", active_missing: "with details that do not say who is active" },
  ],
  groups: ["List of groups", LIST],
  clock: ["Clock", { behind: "ten minutes behind", ahead: "ten minutes ahead" }],
};

const sending = new Map(); // what was set here and is not confirmed yet
let last = Promise.resolve();

export const wants = () => "";
export const load = async () => {};

/** The view. */
export function view() {
  return [
    h(
      "div",
      { class: "bar" },
      h("h2", {}, "Switches"),
      button("All back to normal", "normal", normal, { class: "primary" }),
    ),
    note("normal"),
    h(
      "section",
      { class: "card" },
      h("h3", {}, "Deliveries"),
      h("p", { class: "quiet" }, "Scalekit delivers at least once and in no order. Make it worse."),
      h("div", { class: "switches" }, SWITCHES.map(numberSwitch), pause()),
    ),
    h(
      "section",
      { class: "card" },
      h("h3", {}, "The API"),
      h("p", { class: "quiet" }, "What the service meets when it asks for portal links or reads the directory."),
      h("div", { class: "switches" }, Object.keys(DOORS).map(fault)),
    ),
    rotation(),
  ];
}

/** One change after the other: of several in a hurry none is lost, and the last one stays. */
async function change(place, action, body, done, kept) {
  sending.set(place, kept);
  last = last.then(() => act(place, action, body, done));
  await last;
  if (sending.get(place) === kept) sending.delete(place);
}

function numberSwitch([name, label, limits, what]) {
  const place = `switch ${name}`;
  const now = sending.get(place) ?? desk.state.switches[name];
  const onchange = (event) => {
    const { value } = event.currentTarget;
    if (value === "" || !event.currentTarget.reportValidity()) return;
    change(place, "switches", { [name]: Number(value) }, `${label} is set.`, value);
  };
  const input = h("input", { type: "number", ...limits, value: now, onchange, "aria-describedby": `about-${name}` });
  return h(
    "div",
    { class: Number(now) === desk.state.usual[name] ? "switch" : "switch changed", key: name },
    h("label", { class: "field" }, h("span", {}, label), input),
    h("small", { id: `about-${name}` }, what),
    note(place),
  );
}

function fault(door) {
  const [label, faults] = DOORS[door];
  const place = `fault ${door}`;
  const now = sending.get(place) ?? desk.state.faults[door] ?? "";
  const onchange = (event) => {
    const chosen = event.currentTarget.value;
    change(place, "fault", { door, fault: chosen || null }, `${label}: ${faults[chosen] ?? "normal"}.`, chosen);
  };
  const normally = h("option", { key: "normal", value: "" }, "normal");
  const options = Object.entries(faults).map(([value, words]) => h("option", { key: value, value }, words));
  return h(
    "div",
    { class: now ? "switch changed" : "switch", key: door },
    h("label", { class: "field" }, h("span", {}, label), h("select", { value: now, onchange }, normally, options)),
    note(place),
  );
}

function pause() {
  const place = "switch paused";
  const now = sending.get(place) ?? desk.state.switches.paused;
  const onchange = (event) => {
    const { checked } = event.currentTarget;
    change(place, "switches", { paused: checked }, checked ? "Nothing is sent." : "Deliveries go on.", checked);
  };
  return h(
    "div",
    { class: now ? "switch changed" : "switch", key: "paused" },
    h("label", { class: "check" }, h("input", { type: "checkbox", checked: now, onchange }), h("span", {}, "Paused")),
    h("small", {}, "What happens meanwhile waits, and is sent afterwards."),
    note(place),
  );
}

const normal = () => act("normal", "reset", {}, "Everything is back to normal.");

function rotation() {
  const { rotating } = desk.state.endpoint;
  const step = rotating ? "finish" : "begin";
  const done = rotating ? "Deliveries are signed with the new secret only." : "Deliveries are signed with both secrets.";
  const words = rotating
    ? `Every delivery carries two signatures now, of the old secret and of the new one. Finish it, and only the new one is left:
      a service that was not given it refuses everything.`
    : `To begin signs every delivery with the old secret and the next one, so that a service can change over without a gap.
      There are two, which take turns; ./run gives the service both.`;
  return h(
    "section",
    { class: "card" },
    h("h3", {}, "Secret rotation"),
    h("p", { class: "quiet" }, words),
    h(
      "div",
      { class: "actions" },
      button(rotating ? "Finish the rotation" : "Begin a rotation", "rotation", () => act("rotation", "rotate-secret", { step }, done)),
      note("rotation"),
    ),
  );
}
