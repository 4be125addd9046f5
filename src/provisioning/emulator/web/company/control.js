// Talks to the emulator's control API: with the token, one thing after the other, and with errors in words.

const KEPT = "emulator-token";
const ANSWER_WITHIN = 15_000; // milliseconds

/** The emulator said no; the message says why. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Nothing came back. */
export class Away extends Error {}

export const token = {
  get: () => sessionStorage.getItem(KEPT),
  keep: (value) => sessionStorage.setItem(KEPT, value),
  drop: () => sessionStorage.removeItem(KEPT),
};

/** The answer to a GET. Raises Refused, Away. */
export const ask = (path) => request("GET", path);

let last = Promise.resolve();

/** What `work` comes to, which begins when everything before it is over: no change gets between two looks that belong together. */
export function inTurn(work) {
  const result = last.then(work);
  last = result.catch(() => {});
  return result;
}

/** The answer to an action. Raises Refused, Away. */
export const tell = (action, body) => inTurn(() => request("POST", action, body));

async function request(method, path, body) {
  const headers = { Authorization: `Bearer ${token.get()}` };
  if (body) headers["Content-Type"] = "application/json";
  const signal = AbortSignal.timeout(ANSWER_WITHIN);
  let response, text;
  try {
    response = await fetch(`/control/${path}`, { method, headers, body: body && JSON.stringify(body), cache: "no-store", signal });
    text = await response.text();
  } catch {
    throw new Away("The emulator does not answer. Is it still running?");
  }
  const answer = parsed(text);
  if (response.ok && answer !== undefined) return answer;
  const detail = typeof answer?.detail === "string" ? answer.detail : `The emulator answered ${response.status}.`;
  throw new Refused(response.status, detail);
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Does `work` over and over, never twice at a time, `pause()` milliseconds apart; the function returned makes it go on at once. */
export function loop(work, pause) {
  let again = false;
  let wake = () => {};
  const run = async () => {
    for (;;) {
      again = false;
      await work();
      if (!again) {
        await new Promise((resolve) => {
          wake = resolve;
          setTimeout(resolve, pause());
        });
      }
    }
  };
  run();
  return () => {
    again = true;
    wake();
  };
}
