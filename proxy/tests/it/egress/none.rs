//! Services that chose to have no network.

use serde_json::json;

use super::{Function, probe};
use crate::{
    docker,
    grid::{Grid, wait_until},
    internet::Host,
};

#[test]
fn a_service_may_do_without_a_network_and_get_one_later() {
    let host = Host::public();
    let grid = Grid::start();
    for (name, runtime, code, python) in
        [("bare-n", "node18", super::NODE, false), ("bare-p", "python3.9", super::PYTHON, true)]
    {
        let web = host.tcp(80);
        let extra = json!({"egress": "none", "min_replicas": 1, "max_replicas": 1});
        let service = grid.create(name, runtime, code, extra);
        let function = Function { service, python };
        let container = function.container();
        let seen = docker::inspect(&container);
        assert_eq!(seen["Config"]["NetworkDisabled"], true);
        assert!(
            seen["NetworkSettings"]["Networks"].as_object().is_none_or(serde_json::Map::is_empty)
        );
        assert_eq!(docker::docker(&["exec", &container, "ls", "/sys/class/net"]), "lo");
        let attempts: Vec<_> = [host.address(), [10, 20, 30, 45].into(), [172, 17, 0, 1].into()]
            .map(|to| probe::tcp(to, 80))
            .into();
        for outcome in function.attempts(&grid, &attempts) {
            assert!(["ENETUNREACH", "EHOSTUNREACH"].contains(&outcome.as_str()), "{outcome}");
        }
        assert!(web.seen().is_empty());

        let deployment = grid.patch(&function.service, &json!({"egress": "public"}));
        assert_eq!(
            (&deployment["phase"], &deployment["egress"]),
            (&json!("live"), &json!("public"))
        );
        wait_until("the new container", || {
            let now = docker::containers(&function.service.id, false);
            now.len() == 1 && now[0] != container
        });
        let reached = function.attempts(&grid, &[probe::tcp(host.address(), 80)]);
        assert_eq!(reached, ["answered"]);
        assert_eq!(web.seen().len(), 1);
        assert_ne!(docker::inspect(&function.container())["Config"]["NetworkDisabled"], true);

        grid.patch(&function.service, &json!({"egress": "none"}));
        let cut = || function.attempts(&grid, &[probe::tcp(host.address(), 80)])[0].clone();
        wait_until("the network's end", || cut() == "ENETUNREACH");
    }
}
