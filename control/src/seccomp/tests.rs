//! What the shipped profile allows and refuses, computed from its rules, and how a bad one is told.

use super::*;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn shipped() -> File {
    let text = fs::read_to_string(Path::new(ROOT).join(FILE)).expect("is there");
    serde_json::from_str(&text).expect("is good")
}

impl Argument {
    fn holds(&self, arguments: &[u64]) -> bool {
        let given = arguments.get(usize::from(self.index)).copied().unwrap_or(0);
        match self.op {
            Comparison::Equal => given == self.value,
            Comparison::NotEqual => given != self.value,
            Comparison::Less => given < self.value,
            Comparison::LessOrEqual => given <= self.value,
            Comparison::Greater => given > self.value,
            Comparison::GreaterOrEqual => given >= self.value,
            Comparison::MaskedEqual => given & self.value == self.value_two,
        }
    }
}

impl File {
    /// What becomes of a call: the action, and the error it gives.
    fn outcome(&self, call: &str, arguments: &[u64]) -> (Action, Option<u32>) {
        let rule = self.syscalls.iter().find(|rule| {
            rule.names.iter().any(|name| name == call)
                && rule.args.iter().all(|argument| argument.holds(arguments))
        });
        rule.map_or((self.default_action, self.default_errno_ret), |rule| {
            (rule.action, rule.errno_ret)
        })
    }

    fn allows(&self, call: &str, arguments: &[u64]) -> bool {
        self.outcome(call, arguments).0 == Action::Allow
    }
}

#[test]
fn what_functions_never_need_is_refused() {
    let profile = shipped();
    let calls = "acct add_key adjtimex bpf cachestat chroot clock_adjtime clock_settime \
        delete_module fanotify_init fanotify_mark finit_module fsconfig fsmount fsopen fspick \
        get_mempolicy init_module io_uring_enter io_uring_register io_uring_setup ioperm iopl ipc \
        kcmp kexec_file_load kexec_load keyctl listmount lookup_dcookie mbind memfd_secret \
        migrate_pages modify_ldt mount mount_setattr move_mount move_pages name_to_handle_at \
        open_by_handle_at open_tree perf_event_open personality pidfd_getfd pivot_root \
        process_madvise process_mrelease process_vm_readv process_vm_writev ptrace quotactl \
        quotactl_fd reboot request_key set_mempolicy setdomainname sethostname setns settimeofday \
        socketcall splice statmount swapoff swapon sync syncfs syslog tee umount umount2 unshare \
        userfaultfd vhangup vm86 vm86old vmsplice";
    for call in calls.split_whitespace() {
        assert_eq!(profile.outcome(call, &[]), (Action::Errno, Some(1)), "{call}");
        let named = profile.syscalls.iter().any(|rule| rule.names.iter().any(|name| name == call));
        assert!(!named, "{call} is named in a rule");
    }
}

/// What the kernel counts for the whole host or for a user of it: one function could use it up for
/// all others, and for the host's own programs.
#[test]
fn what_is_scarce_on_the_whole_host_is_refused() {
    let profile = shipped();
    let calls = "inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy \
        io_getevents io_pgetevents io_setup io_submit mq_getsetattr mq_notify mq_open \
        mq_timedreceive mq_timedsend mq_unlink";
    for call in calls.split_whitespace() {
        assert_eq!(profile.outcome(call, &[]), (Action::Errno, Some(1)), "{call}");
    }
}

#[test]
fn what_runtimes_need_is_allowed() {
    let profile = shipped();
    let calls = "accept4 arch_prctl bind brk clock_gettime close_range connect copy_file_range \
        epoll_create1 epoll_pwait eventfd2 execve exit_group faccessat2 fork getdents64 getrandom \
        getsid ioctl kill listen madvise membarrier mmap mprotect newfstatat openat \
        pidfd_open pipe2 ppoll prctl prlimit64 recvmsg rseq rt_sigreturn sched_getaffinity \
        seccomp sendfile sendmmsg set_robust_list setsid sigaltstack statx tgkill timerfd_create \
        unlinkat vfork wait4 waitid writev";
    for call in calls.split_whitespace() {
        assert!(profile.allows(call, &[]), "{call}");
    }
}

#[test]
fn only_plain_sockets_are_made() {
    let profile = shipped();
    let flags = 0o2_000_000 | 0o4_000; // SOCK_CLOEXEC, SOCK_NONBLOCK
    let garbage = 7 << 32; // the kernel does not look there
    for (family, kind, protocol) in [
        (1, 1, 0),
        (1, 2, 0),
        (1, 5 | flags, 0),
        (2, 1, 0),
        (2, 1 | flags, 6),
        (2, 2, 0),
        (2, 2 | flags, 17),
        (10, 1, 0),
        (10, 1, 6),
        (10, 2 | flags, 0),
        (10, 2, 17),
        (16, 2, 0),
        (16, 3 | flags, 0),
        (2 | garbage, 1 | garbage, 6 | garbage),
    ] {
        assert!(profile.allows("socket", &[family, kind, protocol]), "{family} {kind} {protocol}");
    }
    for (what, family, kind, protocol) in [
        ("AF_UNSPEC", 0, 1, 0),
        ("AF_KEY", 15, 3, 2),
        ("AF_PACKET", 17, 3, 0x300),
        ("AF_RDS", 21, 5, 0),
        ("AF_CAN", 29, 3, 1),
        ("AF_TIPC", 30, 5, 0),
        ("AF_BLUETOOTH", 31, 3, 1),
        ("AF_RXRPC", 33, 2, 2),
        ("AF_ALG", 38, 5, 0),
        ("AF_ALG behind garbage", 38 | garbage, 5, 0),
        ("AF_VSOCK", 40, 1, 0),
        ("AF_SMC", 43, 1, 0),
        ("AF_XDP", 44, 3, 0),
        ("raw IPv4", 2, 3, 1),
        ("raw IPv6", 10, 3 | flags, 58),
        ("ping", 2, 2, 1),
        ("SCTP", 2, 1, 132),
        ("SCTP, sequential packets", 10, 5, 132),
        ("sequential packets", 2, 5, 0),
        ("MPTCP", 2, 1, 262),
        ("MPTCP over IPv6", 10, 1, 262),
        ("DCCP", 2, 6, 33),
        ("UDP-Lite", 2, 2, 136),
        ("UDP as a stream", 2, 1, 17),
        ("NETLINK_XFRM", 16, 3, 6),
        ("NETLINK_NETFILTER", 16, 3, 12),
        ("NETLINK_GENERIC", 16, 3, 16),
    ] {
        assert!(!profile.allows("socket", &[family, kind, protocol]), "{what}");
    }
    assert!(profile.allows("socketpair", &[1, 1, 0]));
    assert!(!profile.allows("socketpair", &[30, 5, 0]), "AF_TIPC");
}

#[test]
fn threads_are_made_and_namespaces_are_not() {
    let profile = shipped();
    assert!(profile.allows("clone", &[17]), "fork");
    assert!(profile.allows("clone", &[0x003d_0f00]), "a thread");
    for flag in [
        0x0002_0000, // NEWNS, then NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
        0x0200_0000,
        0x0400_0000,
        0x0800_0000,
        0x1000_0000,
        0x2000_0000,
        0x4000_0000,
    ] {
        assert!(!profile.allows("clone", &[flag | 17]), "{flag:x}");
    }
    assert_eq!(profile.outcome("clone3", &[]), (Action::Errno, Some(38)), "ENOSYS");
    for (operation, allowed) in
        [(0, true), (129, true), (9 | 256, true), (6, false), (11, false), (12 | 128, false)]
    {
        assert_eq!(profile.allows("futex", &[0x1000, operation]), allowed, "futex {operation}");
    }
}

#[test]
fn only_64_bit_calls_exist() {
    for architecture in shipped().arch_map {
        let name = architecture.architecture;
        assert!(["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"].contains(&name.as_str()), "{name}");
        assert_eq!(architecture.sub_architectures, Some(Vec::new()), "{name}");
    }
}

#[test]
fn the_engine_gets_every_rule_and_no_comment() {
    let option = Profile::load(Path::new(ROOT)).expect("is good").security_opt();
    let sent = option.strip_prefix("seccomp=").expect("begins so");
    assert!(!sent.contains("comment") && !sent.contains('\n'), "{sent}");
    // As a tree, since the engine is to find in it what stands in the file.
    let text = fs::read_to_string(Path::new(ROOT).join(FILE)).expect("is there");
    let mut file: serde_json::Value = serde_json::from_str(&text).expect("is good");
    for rule in file["syscalls"].as_array_mut().expect("a list") {
        rule.as_object_mut().expect("an object").remove("comment").expect("each has one");
    }
    assert_eq!(serde_json::from_str::<serde_json::Value>(sent).expect("parses"), file);
}

const GOOD: &str = r#"{
    "defaultAction": "SCMP_ACT_ERRNO",
    "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": null}],
    "syscalls": [
        {"names": ["execve", "exit_group", "mmap"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_BPF"]}},
        {"names": ["socket"], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]}
    ]
}"#;

fn load(text: &str) -> Result<Profile, ConfigError> {
    let dir = tempfile::tempdir().expect("temporary directory");
    fs::create_dir(dir.path().join("config")).expect("creates");
    fs::write(dir.path().join(FILE), text).expect("writes");
    Profile::load(dir.path())
}

#[test]
fn errors_name_file_and_field() {
    load(GOOD).expect("is good");
    for (good, bad, field) in [
        ("\"SCMP_ACT_ERRNO\"", "\"SCMP_ACT_ALLOW\"", "defaultAction: must be"),
        ("\"SCMP_ACT_ERRNO\"", "\"SCMP_ACT_LOG\"", "defaultAction: must be"),
        ("\"SCMP_ACT_ERRNO\"", "\"errno\"", "unknown variant `errno`"),
        ("\"defaultAction\": \"SCMP_ACT_ERRNO\",", "", "missing field `defaultAction`"),
        ("\"args\"", "\"arg\"", "unknown field `arg`"),
        ("\"index\": 0", "\"index\": 6", "syscalls[2].args"),
        (
            "\"args\": [",
            "\"args\": [{\"index\": 0, \"value\": 2, \"op\": \"SCMP_CMP_NE\"},",
            "twice",
        ),
        ("[\"bpf\"]", "[]", "syscalls[1].names"),
        ("\"execve\", ", "", "no rule allows execve"),
        ("{\"architecture\": \"SCMP_ARCH_X86_64\", \"subArchitectures\": null}", "", "archMap"),
        ("{\n    \"def", "\n    \"def", "line"),
    ] {
        let text = GOOD.replace(good, bad);
        assert_ne!(text, GOOD, "{good}");
        let line = load(&text).expect_err(bad).to_string();
        assert!(line.contains(FILE) && line.contains(field), "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");
    }
    let line = Profile::load(Path::new("/nowhere")).expect_err("is not there").to_string();
    assert!(line.contains(FILE), "{line}");
}
