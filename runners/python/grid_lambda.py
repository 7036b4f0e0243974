"""A request as the handler's first argument, in the format `lambda-v2`
(payload format 2.0 of AWS Lambda function URLs)."""
from time import gmtime

from grid_event import body_text, is_client_header, parse_query

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _log_time(ms):
    """`12/Mar/2020:19:03:58 +0000`, whatever the locale."""
    t = gmtime(ms // 1000)
    return "%02d/%s/%04d:%02d:%02d:%02d +0000" % (t[2], MONTHS[t[1] - 1], t[0], t[3], t[4], t[5])


def lambda_event(incoming):
    headers = {name: ",".join(values) for name, values in incoming.headers.items()
               if is_client_header(name) and name != "cookie"}
    headers.setdefault("x-forwarded-proto", incoming.scheme)
    event = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": incoming.rest,
        "rawQueryString": incoming.query,
        "headers": headers,
    }
    cookies = [cookie.strip() for line in incoming.headers.get("cookie", ())
               for cookie in line.split(";") if cookie.strip()]
    if cookies:
        event["cookies"] = cookies
    query = parse_query(incoming.query)
    if query:
        event["queryStringParameters"] = {name: ",".join(values) for name, values in query.items()}
    domain = incoming.domain_name()
    event["requestContext"] = {
        "accountId": "anonymous",
        "apiId": incoming.function_name,
        "domainName": domain,
        "domainPrefix": domain.split(".")[0],
        "http": {
            "method": incoming.method,
            "path": incoming.rest,
            "protocol": incoming.protocol,
            "sourceIp": incoming.source_ip,
            "userAgent": headers.get("user-agent", ""),
        },
        "requestId": incoming.request_id,
        "routeKey": "$default",
        "stage": "$default",
        "time": _log_time(incoming.time_ms),
        "timeEpoch": incoming.time_ms,
    }
    text, is_base64 = body_text(incoming.body)
    if text is not None:
        event["body"] = text
    event["isBase64Encoded"] = is_base64
    return event
