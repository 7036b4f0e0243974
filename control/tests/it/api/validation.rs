//! Every rule of every field, with the exact text that a client gets.

use serde_json::{Value, json};

use super::client::Grid;

#[tokio::test]
async fn each_rule_has_its_message() {
    let grid = Grid::start().await;
    let path = grid.service("victim").await;
    let characters = "Use lower-case letters a-z, digits and hyphens only.";
    let function_characters = "Use lower-case letters a-z, digits, hyphens and underscores only.";
    let handler =
        "Must be the handler's name, or module.name, for example \"handler\" or \"index.handler\".";
    let cases: Vec<(&str, Value, &str)> = vec![
        ("name", json!(null), "This field may not be null."),
        ("name", json!(""), "This field may not be blank."),
        ("name", json!("  "), "This field may not be blank."),
        ("name", json!(5), "Not a valid string."),
        ("name", json!(["a"]), "Not a valid string."),
        ("name", json!("a\u{0}"), "Null characters are not allowed."),
        ("name", json!("a/b"), characters),
        ("name", json!("a.b"), characters),
        ("name", json!("Hello"), characters),
        ("name", json!("héllo"), characters),
        ("name", json!("a_b"), characters),
        ("name", json!("-a"), "Must not start or end with a hyphen."),
        ("name", json!("a".repeat(64)), "Must have 1 to 63 characters."),
        ("function_name", json!("a/b"), function_characters),
        ("function_name", json!("A"), function_characters),
        ("function_name", json!("_a"), "Must start with a letter or a digit."),
        ("function_name", json!(null), "This field may not be null."),
        (
            "public_domain",
            json!("https://a.example.com"),
            "Must be a host name only, without scheme, port or path.",
        ),
        ("public_domain", json!("a:80"), "Must be a host name only, without scheme, port or path."),
        ("public_domain", json!("a".repeat(254)), "Must be a host name of 1 to 253 characters."),
        ("public_domain", json!(""), "This field may not be blank."),
        ("deploy_type", json!("DOCKER"), "Only FUNCTION is supported."),
        ("deploy_type", json!(null), "This field may not be null."),
        ("function_runtime", json!("ruby3"), "\"ruby3\" is not a valid choice."),
        ("function_runtime", json!(18), "\"18\" is not a valid choice."),
        ("function_runtime", json!(null), "This field may not be null."),
        ("function_handler", json!("a.b.c"), handler),
        ("function_handler", json!("1a"), handler),
        ("function_handler", json!("a".repeat(129)), "Must have at most 128 characters."),
        ("function_code", json!(""), "This field may not be blank."),
        ("function_code", json!(null), "This field may not be null."),
        ("function_code", json!({"a": 1}), "Not a valid string."),
        ("function_code", json!("a\u{0}b"), "Null characters are not allowed."),
        ("function_code", json!("x".repeat(262_145)), "Function code exceeds 256 KB."),
        ("event_format", json!("lambda-v1"), "\"lambda-v1\" is not a valid choice."),
        ("memory_mb", json!(63), "Ensure this value is greater than or equal to 64."),
        ("memory_mb", json!(8193), "Ensure this value is less than or equal to 8192."),
        ("memory_mb", json!("lots"), "A valid integer is required."),
        ("memory_mb", json!(128.5), "A valid integer is required."),
        ("memory_mb", json!(null), "This field may not be null."),
        ("cpu_shares", json!(1), "Ensure this value is greater than or equal to 2."),
        ("cpu_shares", json!(262_145), "Ensure this value is less than or equal to 262144."),
        ("min_replicas", json!(-1), "Ensure this value is greater than or equal to 0."),
        ("min_replicas", json!(101), "Ensure this value is less than or equal to 100."),
        ("max_replicas", json!(0), "Ensure this value is greater than or equal to 1."),
        ("max_replicas", json!(true), "A valid integer is required."),
        ("rate_limit", json!(-1), "Ensure this value is greater than or equal to 0."),
        ("rate_limit", json!(1_000_001), "Ensure this value is less than or equal to 1000000."),
        ("rate_limit", json!("off"), "A valid integer is required."),
        ("rate_burst", json!(0), "Ensure this value is greater than or equal to 1."),
        ("function_cod", json!("typo"), "Unknown field."),
        ("environment", json!({}), "Unknown field."),
    ];
    for (field, value, message) in cases {
        let expected = json!({ field: [message] });
        let mut body = json!({"name": "n", "function_runtime": "node18", "function_code": "x"});
        body[field] = value.clone();
        grid.post("/api/v1/services/", &body).await.is(400, &expected);
        grid.patch(&path, &json!({ field: value })).await.is(400, &expected);
    }
    assert_eq!(grid.get("/api/v1/services/").await.json()["count"], 1, "nothing was made");
    assert_eq!(grid.get(&format!("{path}deployments/")).await.json()["count"], 1);
}

#[tokio::test]
async fn all_that_is_wrong_is_told_at_once() {
    let grid = Grid::start().await;
    let body = json!({
        "name": "A", "function_runtime": "x", "memory_mb": "", "min_replicas": -1, "wat": 1,
    });
    let expected = json!({
        "name": ["Use lower-case letters a-z, digits and hyphens only."],
        "function_runtime": ["\"x\" is not a valid choice."],
        "function_code": ["This field is required."],
        "memory_mb": ["A valid integer is required."],
        "min_replicas": ["Ensure this value is greater than or equal to 0."],
        "wat": ["Unknown field."],
    });
    grid.post("/api/v1/services/", &body).await.is(400, &expected);
    let missing = json!({
        "name": ["This field is required."],
        "function_runtime": ["This field is required."],
        "function_code": ["This field is required."],
    });
    grid.post("/api/v1/services/", &json!({})).await.is(400, &missing);
    grid.send("POST", "/api/v1/services/", "").await.is(400, &missing);
}

#[tokio::test]
async fn code_may_be_exactly_as_large_as_the_limit() {
    let grid = Grid::start().await;
    let create = async |name: &str, code: &str| {
        let body = json!({"name": name, "function_runtime": "node18", "function_code": code});
        grid.post("/api/v1/services/", &body).await
    };
    assert_eq!(create("ascii", &"x".repeat(262_144)).await.status, 201);
    assert_eq!(
        create("wide", &format!("//{}", "é".repeat(131_071))).await.status,
        201,
        "bytes count, not letters"
    );
    let too_long = json!({"function_code": ["Function code exceeds 256 KB."]});
    create("wider", &format!("//{}x", "é".repeat(131_071))).await.is(400, &too_long);

    let escaped = r"\u0041".repeat(262_144);
    let body = format!(
        r#"{{"name": "escaped", "function_runtime": "node18", "function_code": "{escaped}"}}"#
    );
    let answer = grid.send("POST", "/api/v1/services/", &body).await;
    assert_eq!(answer.status, 201, "{}", answer.text.len());
}
