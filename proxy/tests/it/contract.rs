//! The admin API keeps its contract: schemathesis reads `/api/v1/openapi.json`, makes requests of
//! every kind from it, good ones and bad ones, alone and in sequences, and checks each answer.

use std::{path::PathBuf, process::Command};

use crate::grid::{Grid, TOKEN};

/// Where `scripts/test` puts schemathesis.
const PACKAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/test-packages/schemathesis");
/// What it must be told besides.
const HOOKS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/contract/hooks.py");
/// Names another seed, to look further: any number.
const SEED: &str = "GRID_TEST_SEED";

#[test]
fn the_admin_api_is_as_its_contract_says() {
    let packages = PathBuf::from(PACKAGES);
    assert!(packages.exists(), "schemathesis is not there: scripts/test fetches it");
    // Each run of a function takes a container; the others show that there is a bound.
    let grid = Grid::with(&[("GRID_INVOKE_RATE", "5")]);
    let seed = std::env::var(SEED).unwrap_or_else(|_| "1".to_owned());
    let place = tempfile::tempdir().expect("temporary directory");
    let output = Command::new("python3")
        .args(["-c", "from schemathesis.cli import schemathesis; schemathesis()", "run"])
        .arg(format!("http://{}/api/v1/openapi.json", grid.admin))
        .args(["--header", &format!("Authorization: Token {TOKEN}")])
        .args(["--checks", "all", "--seed", &seed, "--max-examples", "20", "--no-color"])
        .env("PYTHONPATH", &packages)
        .env("SCHEMATHESIS_HOOKS", HOOKS)
        .current_dir(place.path())
        .output()
        .expect("python3 runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    // It also succeeds when there was nothing to try.
    assert!(said.contains("✅ Coverage") && said.contains("✅ Stateful"), "{said}");
}
