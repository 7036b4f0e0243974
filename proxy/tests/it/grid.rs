//! A real `grid serve` for one test: own data directory, own ports, real Docker Engine. Whatever it
//! made is removed when the test ends, and its log is shown when the test failed.

use std::{
    fs::{File, Permissions},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    docker,
    http::{Answer, Connection},
    lab,
    process::{
        Started, command_of, copy_in, launch, launch_copy, launch_part, launch_unready, short_dir,
    },
    redis::{self, Redis},
};

pub(crate) const TOKEN: &str = "a-token-for-the-end-to-end-tests";
/// Bound of everything that is waited for; far beyond what it takes on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Polls until there is a value; panics with `what` when there is none in time.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(25));
    }
}

/// Polls until a condition holds.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    wait_for(what, || holds().then_some(()));
}

/// Starts it: data directory, settings, log.
type Launch = fn(&Path, &[(&str, &str)], &Arc<Mutex<String>>) -> Started;

/// A running Grid.
pub(crate) struct Grid {
    settings: Vec<(String, String)>,
    dir: tempfile::TempDir,
    /// One, or those of its parts, the edge last.
    processes: Vec<Child>,
    /// What the parts share.
    redis: Option<Redis>,
    pub(crate) public: SocketAddr,
    pub(crate) admin: SocketAddr,
    log: Arc<Mutex<String>>,
    services: Mutex<Vec<String>>,
    /// Tests that do harm to the lab wait until nobody holds it.
    _shared: Option<Arc<File>>,
}

impl Grid {
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// Starts with settings beyond the usual ones and waits for the ready line.
    pub(crate) fn with(settings: &[(&str, &str)]) -> Self {
        Self::launched(launch, settings)
    }

    /// As [`Grid::with`], but does not wait until it is ready, because something is amiss.
    pub(crate) fn unready(settings: &[(&str, &str)]) -> Self {
        Self::launched(launch_unready, settings)
    }

    /// As [`Grid::with`], from a copy of the program that can be replaced.
    pub(crate) fn replaceable(settings: &[(&str, &str)]) -> Self {
        Self::launched(launch_copy, settings)
    }

    /// Puts another program in the place of the one that runs.
    pub(crate) fn replace(&self, program: &[u8]) {
        let fresh = self.data_dir().join("fresh");
        std::fs::write(&fresh, program).expect("written");
        std::fs::set_permissions(&fresh, Permissions::from_mode(0o755)).expect("a mode");
        std::fs::rename(fresh, copy_in(self.data_dir())).expect("renamed");
    }

    /// `grid upgrade`: whether it did, and what it said.
    pub(crate) fn upgrade(&self) -> (bool, String) {
        if self.is_split() {
            let (control, mut said) = self.upgrade_part("control");
            let (edge, more) = self.upgrade_part("edge");
            said.push_str(&more);
            return (control && edge, said);
        }
        self.upgrade_part("all")
    }

    fn upgrade_part(&self, role: &str) -> (bool, String) {
        let program = Path::new(env!("CARGO_BIN_EXE_grid"));
        let settings = [("GRID_ROLE", role)];
        let output = command_of(program, "upgrade", self.data_dir(), &settings).output();
        let output = output.expect("runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    /// The process that serves, which is another one after an upgrade.
    pub(crate) fn serving(&self) -> Option<u32> {
        self.named(if self.is_split() { "grid-edge.pid" } else { "grid.pid" })
    }

    fn named(&self, file: &str) -> Option<u32> {
        std::fs::read_to_string(self.data_dir().join(file)).ok()?.trim().parse().ok()
    }

    /// Waits until the process that was started first has ended by itself, and well.
    pub(crate) fn first_ends(&mut self) {
        for process in &mut self.processes {
            let status = wait_for("the end of grid", || process.try_wait().expect("waited for"));
            assert!(status.success(), "{status}");
        }
    }

    /// As [`Grid::with`], always in two parts over a Redis.
    pub(crate) fn in_parts(settings: &[(&str, &str)]) -> Self {
        Self::launched_in(true, launch, settings)
    }

    fn launched(how: Launch, settings: &[(&str, &str)]) -> Self {
        let parts = std::env::var("GRID_TEST_PARTS").is_ok_and(|parts| parts == "split");
        Self::launched_in(parts, how, settings)
    }

    fn launched_in(parts: bool, how: Launch, settings: &[(&str, &str)]) -> Self {
        let shared = lab::shared();
        let dir = short_dir();
        let log = Arc::default();
        let redis = parts.then(|| Redis::start(dir.path()));
        let Started { processes, public, admin } = how(dir.path(), settings, &log);
        let settings = settings.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let services = Mutex::default();
        Self { settings, dir, processes, redis, public, admin, log, services, _shared: shared }
    }

    /// Starts again on the same data.
    pub(crate) fn restart(&mut self) {
        self.relaunch(launch);
    }

    /// As [`Grid::restart`], with other settings from now on.
    pub(crate) fn restart_with(&mut self, settings: &[(&str, &str)]) {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        self.settings = settings.iter().map(owned).collect();
        self.restart();
    }

    /// As [`Grid::restart`], but does not wait until it is ready, because something is amiss.
    pub(crate) fn restart_unready(&mut self) {
        self.relaunch(launch_unready);
    }

    fn relaunch(&mut self, how: Launch) {
        let settings: Vec<_> =
            self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let started = how(self.dir.path(), &settings, &self.log);
        (self.processes, self.public, self.admin) =
            (started.processes, started.public, started.admin);
    }

    /// SIGKILL: no chance to clean up.
    pub(crate) fn kill9(&mut self) {
        for process in &mut self.processes {
            process.kill().expect("killed");
        }
        for process in &mut self.processes {
            process.wait().expect("waited for");
        }
    }

    /// SIGTERM; it must end by itself, and well.
    pub(crate) fn stop(&mut self) {
        for process in &self.processes {
            let pid = process.id().to_string();
            let sent = Command::new("kill").args(["-TERM", &pid]).status().expect("kill");
            assert!(sent.success());
        }
        self.first_ends();
    }

    /// The process that answers the public.
    pub(crate) fn pid(&self) -> u32 {
        self.processes.last().expect("a process").id()
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("a lock").clone()
    }

    /// The network that its functions share, once it has one.
    pub(crate) fn network(&self) -> Option<String> {
        let log = self.log.lock().map(|log| log.clone()).unwrap_or_default();
        let named = log.lines().find_map(|line| line.split_once(" network=")?.1.split(' ').next());
        named.map(str::to_owned)
    }

    pub(crate) fn data_dir(&self) -> &Path {
        self.dir.path()
    }

    fn is_split(&self) -> bool {
        self.redis.is_some()
    }

    /// The Redis of one that is in parts.
    pub(crate) fn redis(&mut self) -> &mut Redis {
        self.redis.as_mut().expect("in parts")
    }

    /// The process of a part: `edge` or `control`.
    pub(crate) fn kill9_part(&mut self, role: &str) {
        let at = usize::from(role == "edge");
        self.processes[at].kill().expect("killed");
        self.processes[at].wait().expect("waited for");
    }

    /// Starts a part again that was killed, at the addresses that it had.
    pub(crate) fn start_part(&mut self, role: &str) {
        let settings: Vec<_> =
            self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let (public, admin) = (self.public, self.admin);
        let process = launch_part(self.dir.path(), role, (public, admin), &settings, &self.log);
        self.processes[usize::from(role == "edge")] = process;
    }

    /// The file that the state ends up in.
    pub(crate) fn kept_in(&self) -> PathBuf {
        match self.is_split() {
            true => redis::log_in(self.data_dir()),
            false => self.data_dir().join("grid.redb"),
        }
    }

    /// A request to the admin API.
    pub(crate) fn api(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let body = body.map(ToString::to_string).unwrap_or_default();
        self.api_raw(method, path, body.as_bytes())
    }

    pub(crate) fn api_raw(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let token = format!("Token {TOKEN}");
        let mut headers = vec![("host", "localhost"), ("authorization", token.as_str())];
        if !body.is_empty() {
            headers.push(("content-type", "application/json"));
        }
        let answer = Connection::open(self.admin).request(method, path, &headers, body);
        let created = (method, path, answer.status) == ("POST", "/api/v1/services/", 201);
        if created && let Some(id) = answer.json()["id"].as_str() {
            self.services.lock().expect("a lock").push(id.to_owned());
        }
        answer
    }

    /// Creates a service and waits until its deployment is live or failed.
    pub(crate) fn try_create(
        &self,
        name: &str,
        runtime: &str,
        code: &str,
        extra: Value,
    ) -> Service {
        let mut body = json!({
            "name": name, "deploy_type": "FUNCTION",
            "function_runtime": runtime, "function_code": code,
        });
        for (key, value) in extra.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        let answer = self.api("POST", "/api/v1/services/", Some(&body));
        assert_eq!(answer.status, 201, "{}", answer.text());
        let record = answer.json();
        let id = record["id"].as_str().expect("an id").to_owned();
        let deployment = self.settled(&id, record["deployment"]["id"].as_str().expect("an id"));
        Service { id, name: name.to_owned(), deployment }
    }

    /// Creates a service whose deployment must succeed.
    pub(crate) fn create(&self, name: &str, runtime: &str, code: &str, extra: Value) -> Service {
        let service = self.try_create(name, runtime, code, extra);
        assert_eq!(service.deployment["phase"], "live", "{}", service.deployment);
        service
    }

    /// Changes a service; gives the deployment as it ended, null when there was none.
    pub(crate) fn patch(&self, service: &Service, change: &Value) -> Value {
        let answer = self.api("PATCH", &service.path(""), Some(change));
        assert_eq!(answer.status, 200, "{}", answer.text());
        match answer.json()["deployment"]["id"].as_str() {
            Some(id) => self.settled(&service.id, id),
            None => Value::Null,
        }
    }

    /// The deployment when nothing more will happen to it.
    pub(crate) fn settled(&self, service: &str, deployment: &str) -> Value {
        let path = format!("/api/v1/services/{service}/deployments/{deployment}/");
        wait_for(&format!("the end of deployment {deployment}"), || {
            let answer = self.api("GET", &path, None);
            assert_eq!(answer.status, 200, "{}", answer.text());
            let deployment = answer.json();
            let phase = deployment["phase"].as_str().expect("a phase");
            ["live", "failed", "superseded"].contains(&phase).then_some(deployment)
        })
    }

    /// A public request to a function at its default domain.
    pub(crate) fn call(
        &self,
        name: &str,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> Answer {
        let host = format!("{name}.localhost");
        let mut all = vec![("host", host.as_str())];
        all.extend_from_slice(headers);
        let answer = self.connect().request(method, target, &all, body.as_ref());
        answer.assert_traceable();
        answer
    }

    /// `GET /fn/<name><rest>`.
    pub(crate) fn get(&self, name: &str, rest: &str) -> Answer {
        self.call(name, "GET", &format!("/fn/{name}{rest}"), &[], "")
    }

    pub(crate) fn connect(&self) -> Connection {
        Connection::open(self.public)
    }

    /// Log lines of a service, `query` being for example `?tail=5`.
    pub(crate) fn logs(&self, service: &Service, query: &str) -> Vec<Value> {
        let answer = self.api("GET", &service.path(&format!("logs/{query}")), None);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["results"].as_array().expect("a list").clone()
    }
}

impl Drop for Grid {
    fn drop(&mut self) {
        for process in &mut self.processes {
            drop(process.kill());
            drop(process.wait());
        }
        // One that replaced it is not our child.
        let ours = |pid: &u32| {
            let program = std::fs::read_link(format!("/proc/{pid}/exe"));
            program.is_ok_and(|program| program.starts_with(self.dir.path()))
        };
        let files = ["grid.pid", "grid-edge.pid", "grid-control.pid"];
        for pid in files.iter().filter_map(|file| self.named(file)).filter(ours) {
            drop(Command::new("kill").args(["-KILL", &pid.to_string()]).status());
        }
        for service in self.services.lock().map(|ids| ids.clone()).unwrap_or_default() {
            docker::remove_all(&service);
        }
        if let Some(network) = self.network() {
            docker::remove_network(&network);
        }
        if thread::panicking() {
            let log = self.log.lock().map(|log| log.clone()).unwrap_or_default();
            eprintln!("--- log of grid ---\n{log}--- end of the log of grid ---");
        }
    }
}

/// A created service with its first deployment as it ended.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) deployment: Value,
}

impl Service {
    pub(crate) fn path(&self, rest: &str) -> String {
        format!("/api/v1/services/{}/{rest}", self.id)
    }
}
