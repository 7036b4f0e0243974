// Greets: GET /fn/hello?name=you
exports.handler = async (event) => {
  const name = event.queryStringParameters?.name || "world";
  return {
    statusCode: 200,
    headers: { "content-type": "text/plain; charset=utf-8" },
    body: `hello, ${name}\n`,
  };
};
