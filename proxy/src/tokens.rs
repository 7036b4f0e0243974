//! `grid token`: makes, lists and revokes tokens through the admin API.

use std::io::{self, Write};

use control::{
    config::{Config, TokenCommand},
    name::UserName,
};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::admin::{AdminClient, AdminError, Result};

const TOKENS: &str = "/api/v1/tokens/";
/// Entries of one page of the API's: the most that it gives.
const PAGE: usize = 100;
/// What the table has of a token, and under which heading.
const COLUMNS: [(&str, &str); 7] = [
    ("ID", "id"),
    ("USER", "user"),
    ("ADMIN", "is_admin"),
    ("NAME", "name"),
    ("CREATED", "created_at"),
    ("EXPIRES", "expires_at"),
    ("LAST USED", "last_used_at"),
];

/// Runs one of the commands. What was asked for goes to standard output, and nothing else.
pub(crate) fn run(config: &Config, command: &TokenCommand) -> Result<()> {
    match command {
        TokenCommand::Create { user, admin, name, expires_in_days } => {
            let body = json!({
                "user": user, "is_admin": admin, "name": name, "expires_in_days": expires_in_days,
            });
            create(&AdminClient::open_or_create(config)?, &body)
        }
        TokenCommand::List { user, json } => {
            list(&AdminClient::open(config)?, user.as_ref(), *json)
        }
        TokenCommand::Revoke { id } => {
            let client = AdminClient::open(config)?;
            let path = format!("{TOKENS}{id}/?owner=*");
            match client.ask(Method::DELETE, &path, None, StatusCode::NO_CONTENT) {
                Err(AdminError::Refused { status, .. }) if status == StatusCode::NOT_FOUND => {
                    Err(AdminError::Refused { status, said: format!("There is no token {id}.") })
                }
                revoked => revoked.map(|_| eprintln!("Token {id} is revoked.")),
            }
        }
    }
}

fn create(client: &AdminClient, body: &Value) -> Result<()> {
    let made = client.ask(Method::POST, TOKENS, Some(body), StatusCode::CREATED)?;
    let token = made["token"].as_str().unwrap_or_default();
    print(&format!("{token}\n"))?;
    let kind = if made["is_admin"] == true { "an admin" } else { "an ordinary user" };
    let end = match &made["expires_at"] {
        Value::Null => "does not expire".to_owned(),
        at => format!("is refused from {} on", text(at)),
    };
    let (id, user) = (text(&made["id"]), text(&made["user"]));
    eprintln!("Token {id} of {user}, {kind}. It is not shown again, and {end}.");
    Ok(())
}

fn list(client: &AdminClient, user: Option<&UserName>, as_json: bool) -> Result<()> {
    // The one character of a name that means something else in a query.
    let owner = user.map_or("*".to_owned(), |user| user.as_str().replace('+', "%2B"));
    let mut tokens = Vec::new();
    for page in 1_usize.. {
        let path = format!("{TOKENS}?owner={owner}&page_size={PAGE}&page={page}");
        let mut answer = client.ask(Method::GET, &path, None, StatusCode::OK)?;
        if let Value::Array(results) = answer["results"].take() {
            tokens.extend(results);
        }
        if answer["next"].is_null() {
            break;
        }
    }
    if as_json {
        return print(&format!("{:#}\n", Value::Array(tokens)));
    }
    print(&table(&tokens))
}

fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        // Whoever reads it has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// Columns under their headings, two blanks between them.
fn table(tokens: &[Value]) -> String {
    let heads = COLUMNS.map(|(head, _)| head.to_owned());
    let rows = tokens.iter().map(|token| {
        COLUMNS.map(|(_, field)| match (field, &token[field]) {
            ("expires_at", Value::Null) => "never".to_owned(),
            ("expires_at", at) if token["expired"] == true => format!("{} (expired)", time(at)),
            (_, Value::Null) => "-".to_owned(),
            ("is_admin", value) => if *value == true { "yes" } else { "no" }.to_owned(),
            ("created_at" | "expires_at" | "last_used_at", at) => time(at),
            (_, value) => text(value),
        })
    });
    let rows: Vec<_> = std::iter::once(heads).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; COLUMNS.len()] =
        std::array::from_fn(|column| width(column).unwrap_or_default());
    let line = |row: &[String; COLUMNS.len()]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// A time without its fraction of a second.
fn time(value: &Value) -> String {
    let text = text(value);
    match text.split_once('.') {
        Some((second, _)) => format!("{second}Z"),
        None => text,
    }
}

/// A text that cannot steer a terminal.
fn text(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.into() };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_and_harmless() {
        let token = |name: &str, admin: bool, expires: Value, expired: bool| {
            json!({
                "id": "01", "user": "alice", "is_admin": admin, "name": name,
                "created_at": "2027-01-31T12:00:00.123456Z", "expires_at": expires,
                "last_used_at": null, "expired": expired,
            })
        };
        let tokens = [
            token("é\u{1b}[2J", true, Value::Null, false),
            token("ci", false, json!("2027-02-01T00:00:00Z"), true),
        ];
        let expected = "\
ID  USER   ADMIN  NAME        CREATED               EXPIRES                         LAST USED
01  alice  yes    é\\u{1b}[2J  2027-01-31T12:00:00Z  never                           -
01  alice  no     ci          2027-01-31T12:00:00Z  2027-02-01T00:00:00Z (expired)  -
";
        assert_eq!(table(&tokens), expected);
        assert_eq!(table(&[]), "ID  USER  ADMIN  NAME  CREATED  EXPIRES  LAST USED\n");
    }
}
