// Server-sent events: GET /fn/ticks?n=5 tells the time n times, once a second. In a browser:
// new EventSource("http://ticks.localhost:8080/fn/ticks").onmessage = (event) => console.log(event.data)
const second = () => new Promise((resolve) => setTimeout(resolve, 1000));

async function* ticks(count) {
  for (let n = 1; n <= count; n += 1) {
    if (n > 1) await second();
    yield `id: ${n}\ndata: ${new Date().toISOString()}\n\n`;
  }
}

exports.handler = async (event) => {
  const count = Number(event.queryStringParameters?.n ?? 10);
  if (!Number.isInteger(count) || count < 1 || count > 25) {
    return { statusCode: 400, body: { error: "n must be a whole number from 1 to 25" } };
  }
  return {
    statusCode: 200,
    headers: { "content-type": "text/event-stream", "cache-control": "no-store" },
    // Each piece is sent when it is made.
    body: ticks(count),
  };
};
