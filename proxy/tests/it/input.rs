//! Bad input of the admin API: an answer that a person understands, in the framework's form.

use serde_json::{Value, json};

use crate::{grid::Grid, http::Answer};

const CODE: &str = "exports.handler = async () => 'ok'";
const KB: usize = 1024;

fn body(name: &str, code: &str) -> Value {
    json!({"name": name, "function_runtime": "node18", "function_code": code})
}

fn create(grid: &Grid, body: &Value) -> Answer {
    grid.api("POST", "/api/v1/services/", Some(body))
}

/// The first message of a field's error.
fn field(answer: &Answer, name: &str) -> String {
    assert_eq!(answer.status, 400, "{}", answer.text());
    let message = answer.json()[name][0].clone();
    message.as_str().unwrap_or_else(|| panic!("no error of {name}: {}", answer.text())).to_owned()
}

/// The answer says that this field conflicts, in these words, and nothing else.
fn assert_conflict(answer: &Answer, name: &str, message: &str) {
    assert_eq!(answer.status, 409, "{}", answer.text());
    assert_eq!(answer.json(), json!({name: [message]}));
}

#[test]
fn code_up_to_its_limit_and_no_further() {
    let grid = Grid::start();
    let padding = "// \u{e9}\n".repeat(256 * KB); // far too long; cut below
    let mut code = format!("{CODE}\n");
    code.extend(padding.chars().take((256 * KB - code.len()) / 6 * 5));
    code.push_str(&"x".repeat(256 * KB - code.len()).replacen("xx", "//", 1));
    assert_eq!(code.len(), 256 * KB);
    let service = grid.create("largest", "node18", &code, json!({}));
    assert_eq!(grid.get("largest", "").json(), "ok");

    code.push('x');
    let refused = "Function code exceeds 256 KB.";
    assert_eq!(field(&create(&grid, &body("larger", &code)), "function_code"), refused);
    let change = json!({"function_code": code});
    let answer = grid.api("PATCH", &service.path(""), Some(&change));
    assert_eq!(field(&answer, "function_code"), refused);
    let huge = "x".repeat(4 * 1024 * KB);
    let answer = create(&grid, &body("huge", &huge));
    assert!([400, 413].contains(&answer.status), "{}", answer.status);
    assert_eq!(grid.get("largest", "").json(), "ok");
}

#[test]
fn bodies_that_are_no_description_of_a_service() {
    let grid = Grid::start();
    let post = |bytes: &[u8]| grid.api_raw("POST", "/api/v1/services/", bytes);
    let detail = |bytes: &[u8]| {
        let answer = post(bytes);
        assert_eq!(answer.status, 400, "{}", answer.text());
        answer.json()["detail"].as_str().expect("a detail").to_owned()
    };
    let not_utf8 =
        b"{\"name\": \"a\", \"function_runtime\": \"node18\", \"function_code\": \"\xff\xfe\"}";
    assert!(detail(not_utf8).contains("not UTF-8"));
    assert!(detail(br#"{"function_code": "\ud800"}"#).contains("JSON parse error"));
    // The seed's example as it stands there: its quotes are not escaped.
    let pasted = br#"{"function_code": "module.exports.handler = async () => ({ body: "v2" });"}"#;
    assert!(detail(pasted).contains("double quote"), "{}", detail(pasted));
    assert_eq!(
        field(&post(b"[]"), "non_field_errors"),
        "Invalid data. Expected a dictionary, but got list."
    );
    let answer = post(b"");
    for name in ["name", "function_runtime", "function_code"] {
        assert_eq!(field(&answer, name), "This field is required.");
    }
    let odd = json!({
        "name": "a", "function_runtime": "ruby", "function_code": "  ", "memory_mb": 1, "cpu_shares": "many",
        "min_replicas": -1, "max_replicas": 101, "deploy_type": "CONTAINER", "event_format": "xml",
        "function_handler": "not a name", "colour": "blue",
    });
    let answer = create(&grid, &odd);
    for name in odd.as_object().expect("an object").keys().filter(|key| *key != "name") {
        assert!(!field(&answer, name).is_empty());
    }
    assert_eq!(field(&answer, "function_runtime"), "\"ruby\" is not a valid choice.");
    let replicas = json!({"name": "a", "function_runtime": "node18", "function_code": CODE, "min_replicas": 3, "max_replicas": 2});
    // Each field is what it may be; together they are not: that is a conflict.
    let refused = "Must not be greater than max_replicas, which is 2.";
    assert_conflict(&create(&grid, &replicas), "min_replicas", refused);
    assert_eq!(grid.api("GET", "/api/v1/services/", None).json()["count"], 0);
}

#[test]
fn names_that_make_no_address() {
    let grid = Grid::start();
    let long = "x".repeat(64);
    for name in [
        "a/b",
        "a.b",
        "Hello",
        "h\u{e9}llo",
        "\u{65e5}\u{672c}",
        "",
        " ",
        "-a",
        "a-",
        "a b",
        "a_b",
        "..",
        "a\0b",
        &long,
    ] {
        let answer = create(&grid, &body(name, CODE));
        assert!(!field(&answer, "name").is_empty(), "{name:?}");
    }
    for name in ["a/b", "a.b", "Hello", "h\u{e9}llo", "", "-a", "_a", "a b", "%61", &long] {
        let mut body = body("fine", CODE);
        body["function_name"] = json!(name);
        assert!(!field(&create(&grid, &body), "function_name").is_empty(), "{name:?}");
    }
    for domain in [
        "",
        "http://a.b",
        "a.b:80",
        "a..b",
        "a/b",
        "b\u{fc}cher.example",
        "-a.b",
        "a b",
        &format!("{long}.b"),
    ] {
        let mut body = body("fine", CODE);
        body["public_domain"] = json!(domain);
        assert!(!field(&create(&grid, &body), "public_domain").is_empty(), "{domain:?}");
    }
    assert_eq!(grid.api("GET", "/api/v1/services/", None).json()["count"], 0);

    let mut odd_but_good = body("a1-b", CODE);
    odd_but_good["function_name"] = json!("0_a-b");
    odd_but_good["public_domain"] = json!("Sub.Example.COM.");
    let answer = create(&grid, &odd_but_good);
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(answer.json()["public_domain"], "sub.example.com");
}

#[test]
fn two_services_never_share_an_address() {
    let grid = Grid::start();
    let mut first = body("first", CODE);
    first["public_domain"] = json!("shared.example.com");
    first["function_name"] = json!("fn");
    let first = create(&grid, &first).json();
    let mut second = body("second", CODE);
    second["public_domain"] = json!("SHARED.example.com");
    second["function_name"] = json!("fn");
    let address = "Another service has this public_domain and function_name.";
    assert_conflict(&create(&grid, &second), "function_name", address);
    second["function_name"] = json!("fn2");
    let second = create(&grid, &second).json();
    assert_eq!(second["public_domain"], "shared.example.com");
    let path = format!("/api/v1/services/{}/", second["id"].as_str().expect("an id"));
    let answer = grid.api("PATCH", &path, Some(&json!({"function_name": "fn"})));
    assert_conflict(&answer, "function_name", address);
    let again = create(&grid, &body("first", CODE));
    assert_conflict(&again, "name", "A service with this name already exists.");
    assert_eq!(grid.api("GET", "/api/v1/services/", None).json()["count"], 2);
    grid.settled(
        first["id"].as_str().expect("an id"),
        first["deployment"]["id"].as_str().expect("an id"),
    );
    let answer = grid.connect().request("GET", "/fn/fn", &[("host", "shared.example.com")], b"");
    assert_eq!(answer.json(), "ok");
}
