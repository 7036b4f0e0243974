"""Counts the words of a text: POST /fn/words with the text as the body, ?top=3 for the three most frequent."""
import re
from collections import Counter


def handler(event, context):
    text = event["rawBody"]
    if not text or event["isBase64Encoded"]:
        return {"statusCode": 400, "body": {"error": "send a text, for example: curl -d 'to be or not to be'"}}

    query = event["queryStringParameters"] or {}
    try:
        top = int(query.get("top", 5))
    except ValueError:
        return {"statusCode": 400, "body": {"error": "top must be a number"}}

    words = re.findall(r"[^\W\d_]+", text.lower())
    # A plain value is answered as JSON with status 200.
    return {
        "characters": len(text),
        "words": len(words),
        "different": len(set(words)),
        "top": dict(Counter(words).most_common(max(top, 0))),
    }
