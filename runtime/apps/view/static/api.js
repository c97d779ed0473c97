// What the page asks the server for. Requests name cubes, bands and pixels by number.

async function getJson(path, query) {
  const response = await fetch(`/api/${path}?${new URLSearchParams(query)}`);
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error || `status ${response.status}`);
  return answer;
}

export const getScene = () => getJson("scene", {});
export const getRange = (layer) => getJson("range", layer);
export const getErrors = (cube, other) => getJson("errors", { cube, other });
export const getSpectra = (query) => getJson("spectra", query);
export const tileUrl = (layer, level, column, row) => `/api/tile?${layer}&level=${level}&column=${column}&row=${row}`;

/** Return a function that sends the latest query as soon as the request before it is answered. */
export function latestWins(send, receive, fail) {
  let waiting = null;
  let busy = false;
  async function next() {
    if (busy || waiting === null) return;
    const query = waiting;
    waiting = null;
    busy = true;
    try {
      receive(await send(query), query);
    } catch (error) {
      fail(error);
    } finally {
      busy = false;
      next();
    }
  }
  return (query) => {
    waiting = query;
    next();
  };
}
