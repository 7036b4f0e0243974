// A request as the handler's first argument, in the format `lambda-v2`
// (payload format 2.0 of AWS Lambda function URLs).
'use strict';

const { bodyText, domainName, isClientHeader, parseQuery, put } = require('./event.cjs');

const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

/** `12/Mar/2020:19:03:58 +0000` */
function logTime(ms) {
  const iso = new Date(ms).toISOString();
  return `${iso.slice(8, 10)}/${MONTHS[Number(iso.slice(5, 7)) - 1]}/${iso.slice(0, 4)}:${iso.slice(11, 19)} +0000`;
}

function lambdaEvent(request) {
  const headers = {};
  for (const [name, values] of request.headers) {
    if (isClientHeader(name) && name !== 'cookie') put(headers, name, values.join(','));
  }
  if (!request.headers.has('x-forwarded-proto')) headers['x-forwarded-proto'] = request.scheme;
  const event = {
    version: '2.0',
    routeKey: '$default',
    rawPath: request.rest,
    rawQueryString: request.query,
    headers,
  };
  const cookies = (request.headers.get('cookie') || [])
    .flatMap((line) => line.split(';'))
    .map((cookie) => cookie.trim())
    .filter(Boolean);
  if (cookies.length) event.cookies = cookies;
  const query = parseQuery(request.query);
  if (query) {
    event.queryStringParameters = {};
    for (const [name, values] of query) put(event.queryStringParameters, name, values.join(','));
  }
  const domain = domainName(request.headers);
  event.requestContext = {
    accountId: 'anonymous',
    apiId: request.functionName,
    domainName: domain,
    domainPrefix: domain.split('.')[0],
    http: {
      method: request.method,
      path: request.rest,
      protocol: request.protocol,
      sourceIp: request.sourceIp,
      userAgent: headers['user-agent'] || '',
    },
    requestId: request.requestId,
    routeKey: '$default',
    stage: '$default',
    time: logTime(request.time),
    timeEpoch: request.time,
  };
  const { text, base64 } = bodyText(request.body);
  if (text !== null) event.body = text;
  event.isBase64Encoded = base64;
  return event;
}

module.exports = { lambdaEvent };
