// What was sent, newest first, how each attempt was answered, and what the service says now about whom it concerned.

import { h } from "./elements.js";
import { ask } from "./control.js";
import { act, button, desk, note } from "./desk.js";
import { inTheService, watch } from "./service.js";

const WORDS = { waiting: "waiting", delivered: "delivered", given_up: "given up" };

let progress = "";
let deliveries = [];
const bodies = new Map(); // webhook id -> the event, or why it cannot be shown
const unfolded = new Set();

export const wants = () => progress;

/** Fetches the latest deliveries. */
export async function load() {
  deliveries = (await ask(`deliveries?${new URLSearchParams({ limit: 50, ...(progress && { progress }) })}`)).data;
  watch(deliveries.filter(concernsAPerson).map(({ subject_id }) => subject_id));
}

const concernsAPerson = ({ type }) => type.includes(".user_");

/** The view. */
export function view() {
  const counts = desk.state.deliveries;
  return [
    h(
      "div",
      { class: "bar" },
      h("h2", {}, "Deliveries"),
      h("label", { class: "field" }, h("span", {}, "Show"), filter(counts)),
    ),
    h(
      "p",
      { class: "quiet" },
      `To ${desk.state.endpoint.url}: ${counts.attempts.toLocaleString("en")} attempts so far. The last 50 are shown, newest first.`,
    ),
    counts.given_up
      ? h(
          "div",
          { class: "actions", key: "all" },
          button(`Send all given up again (${counts.given_up})`, "resend", () => act("resend", "resend", {}, "They are being sent again.")),
        )
      : null,
    note("resend"),
    deliveries.length ? null : h("p", { class: "empty" }, progress ? `None is ${WORDS[progress]}.` : "Nothing was sent yet."),
    h("ul", { class: "rows deliveries", "aria-label": "Deliveries" }, deliveries.map(row)),
  ];
}

function filter(counts) {
  const onchange = (event) => {
    progress = event.currentTarget.value;
    desk.refresh();
  };
  const options = Object.entries(WORDS).map(([value, words]) => h("option", { key: value, value }, `${words} (${counts[value]})`));
  return h("select", { value: progress, onchange }, h("option", { key: "all", value: "" }, "all"), options);
}

function row(delivery) {
  const { id, type, attempts } = delivery;
  const place = `delivery ${id}`;
  const last = attempts.at(-1);
  const ontoggle = (event) => unfold(id, event.currentTarget.open);
  return h(
    "li",
    { key: id, class: "row", "aria-label": `${short(type)} ${delivery.subject ?? delivery.subject_id}` },
    h(
      "div",
      {},
      h("h3", {}, short(type)),
      h("p", { class: "address" }, delivery.subject ?? delivery.subject_id),
      h("p", { class: "quiet" }, last ? [moment(last.at), ` · ${answer(last)}`] : "no attempt yet"),
    ),
    h(
      "ul",
      { class: "chips" },
      h("li", { class: `state ${delivery.progress}` }, WORDS[delivery.progress]),
      attempts.length > 1 ? h("li", {}, `${attempts.length} attempts`) : null,
    ),
    concernsAPerson(delivery) ? inTheService(delivery.subject_id) : h("span", { class: "service-none" }),
    delivery.progress === "given_up"
      ? h(
          "div",
          { class: "doings", key: "again" },
          button("Send again", place, () => act(place, "resend", { deliveries: [id] }, "It is being sent again.")),
        )
      : null,
    note(place),
    h("details", { class: "more", ontoggle }, h("summary", {}, "Attempts and body"), unfolded.has(id) ? unfoldedParts(delivery) : null),
  );
}

const short = (type) => type.replace(/^organization\.(directory\.)?/, "");

const moment = (at) => h("time", { datetime: at }, new Date(at).toLocaleTimeString());

const answer = ({ status, outcome, error, milliseconds }) => `${[status, outcome, error].filter(Boolean).join(" ")} in ${milliseconds} ms`;

function unfoldedParts({ id, attempts }) {
  const cells = ({ at, status, outcome, error, milliseconds }) => [moment(at), status ?? "–", outcome ?? error, `${milliseconds} ms`];
  return [
    h("p", { class: "quiet address" }, `webhook-id ${id}`),
    attempts.length
      ? h(
          "table",
          {},
          h("thead", {}, h("tr", {}, ["At", "Status", "Answer", "Took"].map((name) => h("th", { scope: "col" }, name)))),
          h("tbody", {}, attempts.map((attempt) => h("tr", {}, cells(attempt).map((cell) => h("td", {}, cell))))),
        )
      : null,
    h("pre", { tabindex: "0", "aria-label": "Body of the event" }, bodies.get(id) ?? "…"),
  ];
}

async function unfold(id, isOpen) {
  if (isOpen === unfolded.has(id)) return;
  if (!isOpen) unfolded.delete(id);
  else unfolded.add(id);
  desk.redraw();
  if (!isOpen) return;
  try {
    bodies.set(id, JSON.stringify((await ask(`deliveries/${id}`)).body, null, 2));
  } catch (error) {
    bodies.set(id, error.message);
  }
  desk.redraw();
}
