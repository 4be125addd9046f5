// Much at once: a first sync, the named scenarios, and whether the service then says the same.

import { h } from "./elements.js";
import { ask } from "./control.js";
import { act, button, desk, field, form, note, PROVIDERS, say } from "./desk.js";

let result = null; // of the last comparison
let comparing = false;

export const wants = () => "";
export const load = async () => {};

/** The view. */
export function view() {
  return [h("div", { class: "bar" }, h("h2", {}, "Play")), job(), sync(), scenarios(), comparison()];
}

const running = () => desk.state.job?.state === "running";

function job() {
  const { job } = desk.state;
  if (!job) return null;
  const { name, state, step, done, total, error } = job;
  return h(
    "section",
    { key: "job", class: `card job ${state}`, "aria-label": "Job" },
    h("div", { class: "bar" }, h("h3", {}, name), h("span", { class: `chip state ${state}` }, state)),
    total ? h("progress", { max: total, value: done, "aria-label": name }) : null,
    h("p", {}, [step, total ? `${done.toLocaleString("en")} of ${total.toLocaleString("en")}` : null].filter(Boolean).join(" · ")),
    error ? h("p", { class: "note error" }, error) : null,
    running() ? button("Cancel", "cancel", () => act("cancel", "cancel", {}, "Cancelled.")) : null,
    note("cancel"),
  );
}

function sync() {
  const { directory } = desk;
  if (!directory) return null;
  const where = PROVIDERS[directory.provider];
  const send = ({ users, rate }) => {
    const body = { directory: directory.id, users: Number(users), ...(rate && { rate: Number(rate) }) };
    return act("sync", "sync", body, "The first sync has begun.").then(() => null);
  };
  return h(
    "section",
    { class: "card", key: "sync" },
    h("h3", {}, "A first sync"),
    h("p", { class: "quiet" }, `Made-up people arrive in the ${where} directory: first all of them, then groups, then who is in which.`),
    form(
      { class: "inline", "aria-label": "First sync" },
      send,
      field("Users", { name: "users", type: "number", min: 1, max: 100000, initial: "500", required: true }),
      field("Per second", { name: "rate", type: "number", min: 0.1, max: 10000, step: "any", initial: "100", placeholder: "no limit" }),
      button("Start the sync", "sync", () => {}, { type: "submit", class: "primary" }),
    ),
    note("sync"),
  );
}

function scenarios() {
  return h(
    "section",
    { class: "card", key: "scenarios" },
    h("h3", {}, "Scenarios"),
    h(
      "ul",
      { class: "scenarios" },
      desk.state.scenarios.map(({ name, what }) => {
        const place = `scenario ${name}`;
        const play = () => act(place, "scenario", { name }, `${name} has begun.`);
        return h(
          "li",
          { key: name },
          h("div", {}, h("h4", {}, name), h("p", { class: "quiet" }, what)),
          button("Run", place, play, { "aria-label": `Run ${name}` }),
          note(place),
        );
      }),
    ),
  );
}

function comparison() {
  const { organization } = desk;
  if (!organization) return null;
  return h(
    "section",
    { class: "card", key: "comparison" },
    h("h3", {}, "Compare with the service"),
    h("p", { class: "quiet" }, `Everybody in ${organization.name}, field by field: what the directories say, and what the service says.`),
    button("Compare with the service", "comparison", () => compare(organization)),
    note("comparison"),
    result?.organization === organization.id ? differences(result) : null,
  );
}

async function compare({ id }) {
  if (comparing) return;
  comparing = true;
  try {
    result = { organization: id, ...(await ask(`comparison?organization=${id}`)) };
    const { length } = result.differences;
    const verdict = result.equal ? "everything is equal" : `${length} ${length === 1 ? "difference" : "differences"}`;
    say("comparison", result.equal ? "equal" : "differs", `${result.compared.toLocaleString("en")} people compared: ${verdict}.`);
  } catch (error) {
    result = null;
    say("comparison", "error", error.message);
  } finally {
    comparing = false;
  }
}

function differences({ differences }) {
  if (!differences.length) return null;
  const rows = differences.slice(0, 200).map((each) => [each.email, each.field, words(each.directory), words(each.service)]);
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": "Differences" },
    h(
      "table",
      {},
      h("thead", {}, h("tr", {}, ["Who", "Field", "Directory", "Service"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell) => h("td", {}, cell))))),
    ),
  );
}

const words = (value) => (value === null ? "–" : typeof value === "string" ? value : JSON.stringify(value));
