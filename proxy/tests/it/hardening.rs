//! A function's container as the engine describes it, and as the code in it finds it.

use serde_json::{Value, json};

use crate::{docker, grid::Grid};

const NODE: &str = r##"
const fs = require("fs"), os = require("os"), {execFileSync} = require("child_process");
const attempt = (what) => { try { what(); return "done"; } catch (e) { return e.code || String(e); } };
exports.handler = () => ({
  uid: process.getuid(), gid: process.getgid(), groups: process.getgroups(),
  interfaces: Object.keys(os.networkInterfaces()),
  links: fs.readdirSync("/sys/class/net"),
  app: attempt(() => fs.writeFileSync("/app/x", "x")),
  code: attempt(() => fs.appendFileSync("/app/function/index.js", "x")),
  etc: attempt(() => fs.writeFileSync("/etc/x", "x")),
  home: attempt(() => fs.writeFileSync("/run/grid/x", "x")),
  socket: attempt(() => fs.unlinkSync("/run/grid/edge.sock")),
  tmp: attempt(() => fs.writeFileSync("/tmp/x", "x")),
  tmpFull: attempt(() => fs.writeFileSync("/tmp/y", Buffer.alloc(80 << 20))),
  tmpFree: attempt(() => fs.unlinkSync("/tmp/y")),
  tmpExec: attempt(() => { fs.writeFileSync("/tmp/s", "#!/bin/sh\n", {mode: 0o755}); execFileSync("/tmp/s"); }),
  status: fs.readFileSync("/proc/self/status", "utf8"),
  limits: fs.readFileSync("/proc/self/limits", "utf8"),
  engine: fs.existsSync("/var/run/docker.sock"),
  env: Object.keys(process.env).filter((name) => /TOKEN|SECRET|KEY/i.test(name)),
});"##;

const PYTHON: &str = r##"
import os, subprocess, errno
def attempt(what):
    try:
        what()
        return "done"
    except OSError as e:
        return errno.errorcode[e.errno]
def write(path, data="x", mode="w"):
    with open(path, mode) as f: f.write(data)
def script():
    write("/tmp/s", "#!/bin/sh\n")
    os.chmod("/tmp/s", 0o755)
    subprocess.check_call(["/tmp/s"])
def handler(event, context):
    return {
        "uid": os.getuid(), "gid": os.getgid(), "groups": os.getgroups(),
        "interfaces": [], "links": os.listdir("/sys/class/net"),
        "app": attempt(lambda: write("/app/x")),
        "code": attempt(lambda: write("/app/function/function.py", "x", "a")),
        "etc": attempt(lambda: write("/etc/x")),
        "home": attempt(lambda: write("/run/grid/x")),
        "socket": attempt(lambda: os.unlink("/run/grid/edge.sock")),
        "tmp": attempt(lambda: write("/tmp/x")),
        "tmpFull": attempt(lambda: write("/tmp/y", "x" * (80 << 20))),
        "tmpFree": attempt(lambda: os.unlink("/tmp/y")),
        "tmpExec": attempt(script),
        "status": open("/proc/self/status").read(), "limits": open("/proc/self/limits").read(),
        "engine": os.path.exists("/var/run/docker.sock"),
        "env": [name for name in os.environ if "TOKEN" in name or "SECRET" in name or "KEY" in name],
    }
"##;

fn check_outside(container: &str, service: &str, deployment: &str, network: Option<&str>) {
    let seen = docker::inspect(container);
    let (host, config) = (&seen["HostConfig"], &seen["Config"]);
    assert_eq!(host["ReadonlyRootfs"], true);
    assert_eq!(host["CapDrop"], json!(["ALL"]));
    assert_eq!(host["CapAdd"], Value::Null);
    assert_eq!(host["Privileged"], false);
    let options = host["SecurityOpt"].as_array().expect("options");
    assert!(options.contains(&json!("no-new-privileges")), "{options:?}");
    let profile = options.iter().find_map(|option| option.as_str()?.strip_prefix("seccomp="));
    let profile: Value = serde_json::from_str(profile.expect("a profile")).expect("JSON");
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    assert_eq!(host["PidsLimit"], 128);
    assert_eq!(host["Memory"], 256 * 1024 * 1024);
    assert_eq!(host["MemorySwap"], host["Memory"]);
    assert_eq!(host["CpuShares"], 512);
    assert!(host["NanoCpus"].as_i64().is_some_and(|ceiling| ceiling > 0));
    assert_eq!(host["IpcMode"], "private");
    assert_eq!(host["CgroupnsMode"], "private");
    assert_eq!(host["Init"], true);
    assert!(host["PortBindings"].as_object().is_none_or(serde_json::Map::is_empty));
    assert_eq!(host["RestartPolicy"]["MaximumRetryCount"], 0);
    let options = host["Tmpfs"]["/tmp"].as_str().expect("a tmpfs");
    for option in ["noexec", "nosuid", "nodev", "size=64m", "nr_inodes=16k"] {
        assert!(options.contains(option), "{options}");
    }
    let limits = host["Ulimits"].as_array().expect("limits");
    for (name, value) in [("nofile", 1024), ("core", 0), ("sigpending", 1024)] {
        let limit = json!({"Name": name, "Soft": value, "Hard": value});
        assert!(limits.contains(&limit), "{limits:?}");
    }
    assert_eq!(host["LogConfig"]["Config"]["max-file"], "2");
    let mounts = seen["Mounts"].as_array().expect("mounts");
    assert_eq!(mounts.len(), 1, "{mounts:?}");
    assert_eq!((&mounts[0]["Destination"], &mounts[0]["RW"]), (&json!("/run/grid"), &json!(false)));
    assert_eq!(config["User"], "1000:1000");
    assert_eq!(config["Healthcheck"]["Test"], json!(["NONE"]));
    match network {
        Some(network) => {
            assert_eq!(host["NetworkMode"], network);
            let attached = &seen["NetworkSettings"]["Networks"];
            assert_eq!(attached.as_object().map(serde_json::Map::len), Some(1), "{attached}");
            assert_eq!(host["Dns"], json!([attached[network]["Gateway"]]));
        }
        None => assert_eq!(config["NetworkDisabled"], true),
    }
    let labels = &config["Labels"];
    assert_eq!(labels["grid.managed"], "true");
    assert_eq!(
        (&labels["grid.service"], &labels["grid.deployment"]),
        (&json!(service), &json!(deployment))
    );
    for name in ["grid.replica", "grid.instance"] {
        assert!(labels[name].as_str().is_some_and(|text| !text.is_empty()), "{labels}");
    }
    let image = docker::inspect(seen["Image"].as_str().expect("an image"));
    assert_eq!(image["RepoTags"], json!([format!("smsly/function-{service}:{deployment}")]));
    assert_eq!(image["Config"]["Labels"]["grid.service"], service);
    assert_eq!(image["Config"]["Labels"]["grid.instance"], labels["grid.instance"]);
}

fn check_inside(found: &Value, interfaces: &[&str]) {
    assert_eq!((&found["uid"], &found["gid"]), (&json!(1000), &json!(1000)));
    assert!(
        found["groups"].as_array().is_some_and(|all| all.iter().all(|g| *g == 1000)),
        "{found}"
    );
    let mut links: Vec<_> = found["links"].as_array().expect("a list").iter().collect();
    links.sort_by_key(|link| link.as_str());
    assert_eq!(links, interfaces);
    let seen = found["interfaces"].as_array().expect("a list");
    assert!(seen.iter().all(|name| links.contains(&name)), "{seen:?}");
    for place in ["app", "code", "etc", "home", "socket"] {
        let outcome = found[place].as_str().expect("an outcome");
        assert!(["EROFS", "EACCES", "EPERM"].contains(&outcome), "{place}: {outcome}");
    }
    assert_eq!(found["tmp"], "done");
    assert_eq!(found["tmpFull"], "ENOSPC");
    assert_eq!(found["tmpExec"], "EACCES");
    assert_eq!((&found["engine"], &found["env"]), (&json!(false), &json!([])));
    let status = found["status"].as_str().expect("a text");
    for line in
        ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"]
    {
        assert!(status.contains(line), "{line}: {status}");
    }
    let limits = found["limits"].as_str().expect("a text");
    let files = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    assert_eq!(files.split_whitespace().nth(3), Some("1024"));
}

fn check(egress: &str, interfaces: &[&str]) {
    let grid = Grid::start();
    let network = grid.network().filter(|_| egress == "public");
    for (name, runtime, code) in [("hard-n", "node18", NODE), ("hard-p", "python3.9", PYTHON)] {
        let fields = json!({"memory_mb": 256, "cpu_shares": 512, "egress": egress});
        let service = grid.create(name, runtime, code, fields);
        let answer = grid.get(name, "");
        assert_eq!(answer.status, 200, "{}: {:?}", answer.text(), grid.logs(&service, ""));
        check_inside(&answer.json(), interfaces);
        let container = docker::containers(&service.id, false).pop().expect("a container");
        let deployment = service.deployment["id"].as_str().expect("an id");
        check_outside(&container, &service.id, deployment, network.as_deref());
    }
}

#[test]
fn a_functions_container_is_hardened() {
    check("public", &["eth0", "lo"]);
}

#[test]
fn a_container_without_network_is_hardened_as_well() {
    check("none", &["lo"]);
}
