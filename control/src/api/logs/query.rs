//! What a request for logs asks for.

use http::{HeaderMap, Uri, header};
use jiff::Timestamp;

use super::{format::Format, time};
use crate::{
    api::{error::ApiError, fields::Fields},
    limits,
    logs::LogQuery,
};

/// Lines when the client asks for no other number.
const TAIL: u32 = 100;
/// Lines at most.
const MAX_TAIL: u32 = 10_000;
/// Names of the parameters.
const NAMES: [&str; 6] = ["tail", "request_id", "since", "until", "format", "follow"];
/// Where a browser's `EventSource` that lost its connection goes on.
const LAST_EVENT_ID: &str = "last-event-id";

/// A request for logs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// Which lines.
    pub(super) query: LogQuery,
    /// Those that come as well.
    pub(super) follow: bool,
    /// How they are written.
    pub(super) format: Format,
}

impl Asked {
    /// Reads parameters and headers; an empty parameter counts as absent.
    ///
    /// # Errors
    /// All that is wrong with any of them; or with two of them together.
    pub(super) fn read(uri: &Uri, headers: &HeaderMap, now: Timestamp) -> Result<Self, ApiError> {
        let mut fields = Fields::of_query(uri, &NAMES);
        let follow = switch(&mut fields, "follow").unwrap_or(false);
        let mut tail = fields.integer("tail", 0..=MAX_TAIL).unwrap_or(TAIL);
        let request_id = fields.text_up_to("request_id", limits::REQUEST_ID_CHARS);
        let mut since = moment(&mut fields, "since", now);
        let until = moment(&mut fields, "until", now);
        let format = fields.choice("format", &["json", "text"]);
        fields.finish(&[]).map_err(ApiError::Fields)?;
        if let (Some(since), Some(until)) = (since, until)
            && since > until
        {
            return Err(ApiError::conflict("since", "Must not be later than until."));
        }
        let format = Format::of(format.as_deref(), follow, headers);
        if format == Format::Events
            && let Some(last) = last_event(headers)
        {
            since = since.max(Some(last));
            tail = MAX_TAIL;
        }
        let tail = tail.try_into().unwrap_or(usize::MAX);
        Ok(Self { query: LogQuery { tail, request_id, since, until }, follow, format })
    }
}

fn switch(fields: &mut Fields, name: &str) -> Option<bool> {
    match fields.text(name)?.as_str() {
        "true" | "1" => return Some(true),
        "false" | "0" => return Some(false),
        _ => fields.refuse(name, "Must be a valid boolean."),
    }
    None
}

fn moment(fields: &mut Fields, name: &str, now: Timestamp) -> Option<Timestamp> {
    let text = fields.text(name)?;
    match time::parse(&text, now) {
        Ok(time) => Some(time),
        Err(rule) => {
            fields.refuse(name, rule);
            None
        }
    }
}

/// The time behind that of the last event that the client has.
fn last_event(headers: &HeaderMap) -> Option<Timestamp> {
    let last = headers.get(LAST_EVENT_ID)?.to_str().ok()?.parse::<Timestamp>().ok()?;
    last.checked_add(jiff::SignedDuration::from_nanos(1)).ok()
}

/// Whether `Accept` names a media type, and JSON not.
pub(super) fn accepts(headers: &HeaderMap, media: &str) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains(media) && !accept.contains("application/json"))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::json;

    use super::*;
    use crate::api::error::FieldErrors;

    fn ask(uri: &'static str, headers: &[(&'static str, &'static str)]) -> Result<Asked, ApiError> {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().expect("a name"), HeaderValue::from_static(value)));
        let now = "2026-11-24T09:00:00Z".parse().expect("a time");
        Asked::read(&Uri::from_static(uri), &headers.collect(), now)
    }

    fn refused(uri: &'static str) -> FieldErrors {
        match ask(uri, &[]) {
            Err(ApiError::Fields(errors)) => errors,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_comes_back_is_what_was_asked_for() {
        let cases = [
            ("/", "*/*", Format::Json),
            ("/", "text/html,*/*;q=0.8", Format::Json),
            ("/", "application/json, text/plain, */*", Format::Json),
            ("/", "text/plain", Format::Text),
            ("/?format=json", "text/plain", Format::Json),
            ("/?format=text", "*/*", Format::Text),
            ("/", "text/event-stream", Format::Json),
            ("/?follow=true", "*/*", Format::Lines),
            ("/?follow=true", "application/json", Format::Lines),
            ("/?follow=true", "text/plain", Format::Text),
            ("/?follow=true", "text/event-stream", Format::Events),
            ("/?follow=true&format=json", "text/event-stream", Format::Lines),
            ("/?follow=true&format=text", "text/event-stream", Format::Text),
        ];
        for (uri, accept, format) in cases {
            let asked = ask(uri, &[("accept", accept)]).map(|asked| asked.format);
            assert_eq!(asked, Ok(format), "{uri} {accept}");
        }
    }

    #[test]
    fn parameters_are_checked_as_fields_are() {
        let asked = ask("/?tail=&request_id=r%201&until=1h", &[]).expect("valid");
        let until = "2026-11-24T08:00:00Z".parse().ok();
        let query = LogQuery { tail: 100, request_id: Some("r 1".to_owned()), since: None, until };
        assert_eq!((asked.query, asked.follow), (query, false));
        assert_eq!(ask("/?tail=10000", &[]).expect("valid").query.tail, 10_000);
        assert_eq!(ask("/?tail=0&follow=1", &[]).expect("valid").query.tail, 0);
        let same = ask("/?since=2026-11-24T10:00:00%2B01:00&until=0s", &[]).expect("valid").query;
        assert_eq!((same.since, same.since), (same.until, "2026-11-24T09:00:00Z".parse().ok()));

        let errors = refused("/?tail=-1&format=xml&follow=perhaps");
        assert_eq!(errors["tail"], json!(["Ensure this value is greater than or equal to 0."]));
        assert_eq!(errors["format"], json!(["\"xml\" is not a valid choice."]));
        assert_eq!(errors["follow"], json!(["Must be a valid boolean."]));
        let errors = refused("/?tail=many&since=never&until=soon");
        assert_eq!(errors["tail"], json!(["A valid integer is required."]));
        let rule = json!([time::RULE]);
        assert_eq!((&errors["since"], &errors["until"]), (&rule, &rule));
        let later = ApiError::conflict("since", "Must not be later than until.");
        assert_eq!(ask("/?since=1h&until=2h", &[]), Err(later));
    }

    #[test]
    fn an_event_source_goes_on_behind_its_last_event() {
        let last = [("accept", "text/event-stream"), ("last-event-id", "2026-11-24T08:00:00.5Z")];
        let behind = "2026-11-24T08:00:00.500000001Z".parse().ok();
        let query = ask("/?follow=true", &last).expect("valid").query;
        assert_eq!((query.since, query.tail), (behind, 10_000));
        let query = ask("/?follow=true&since=30m", &last).expect("valid").query;
        assert_eq!(query.since, "2026-11-24T08:30:00Z".parse().ok());
        let query = ask("/?follow=true", &[last[0], ("last-event-id", "7")]).expect("valid").query;
        assert_eq!((query.since, query.tail), (None, 100));
        assert_eq!(ask("/?follow=true", &last[1..]).expect("valid").query.since, None);
    }
}
