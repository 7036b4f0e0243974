//! Which versions give which warnings.

use super::*;

fn of_runc(version: &str) -> Vec<Warning> {
    warnings(&Versions { runc: Some(version.to_owned()), ..Versions::default() })
}

fn of_kernel(release: &str) -> Vec<Warning> {
    warnings(&Versions { kernel: release.to_owned(), ..Versions::default() })
}

/// The last digits of each fault, and what to go to.
fn short(warnings: &[Warning]) -> Vec<String> {
    let short = |warning: &Warning| {
        let cves: Vec<_> = warning.cves.iter().map(|cve| cve.rsplit('-').next()).collect();
        let cves: Vec<_> = cves.into_iter().flatten().collect();
        format!("{}: {}", cves.join(" "), listed(&warning.fixed))
    };
    warnings.iter().map(short).collect()
}

#[test]
fn the_table_is_in_order() {
    for advisory in &ADVISORIES {
        let parsed: Option<Vec<_>> = advisory.fixed.iter().map(|v| Version::parse(v)).collect();
        let fixed = parsed.expect("versions");
        assert!(fixed.is_sorted() && !fixed.is_empty(), "{:?}", advisory.cves);
        let since = Version::parse(advisory.since).expect("a version");
        assert!(since < fixed[0], "{:?}", advisory.cves);
    }
}

#[test]
fn runc_by_branch() {
    const OLD: [&str; 3] = [
        "21626: 1.1.12",
        "31133 52565 52881: 1.2.8, 1.3.3 and 1.4.0",
        "41579: 1.3.6, 1.4.3 and 1.5.0",
    ];
    let cases: [(&str, &[&str]); 15] = [
        ("1.1.5+ds1", &OLD),
        ("1.1.5+ds1-1+deb12u1", &OLD),
        ("v1.1.11", &OLD),
        ("1.0.0-rc92", &OLD[1..]),
        ("1.1.12", &OLD[1..]),
        ("1.2.0-rc.1", &["31133 52565 52881: 1.2.8", OLD[2]]),
        ("1.2.7", &["31133 52565 52881: 1.2.8", OLD[2]]),
        ("1.2.8", &[OLD[2]]),
        ("1.3.2-0ubuntu1~24.04.1", &["31133 52565 52881: 1.3.3", "41579: 1.3.6"]),
        ("1.3.5", &["41579: 1.3.6"]),
        ("1.3.6", &[]),
        ("1.4.0-rc.2", &["31133 52565 52881: 1.4.0", "41579: 1.4.3"]),
        ("1.4.0-rc.3", &["41579: 1.4.3"]),
        ("1.4.3", &[]),
        ("1.5.0", &[]),
    ];
    for (version, expected) in cases {
        assert_eq!(short(&of_runc(version)), expected, "{version}");
    }
}

#[test]
fn kernels_that_tell_their_patch_level() {
    let epoll = "46242: 6.6.144, 6.12.95, 6.18.33 and 7.0.10";
    let cases: [(&str, &[&str]); 20] = [
        ("5.7.19", &[]),
        ("5.8.0", &["0847: 5.10.102, 5.15.25 and 5.16.11"]),
        ("5.10.101-flatcar", &["0847: 5.10.102"]),
        ("5.10.102", &[]),
        ("5.15.24", &["0847: 5.15.25", "38236: 5.15.194"]),
        ("5.15.193-linuxkit", &["38236: 5.15.194"]),
        ("5.15.194", &[]),
        ("5.17.1", &["38236: 6.1.143, 6.6.96, 6.12.36 and 6.15.5"]),
        ("6.1.36", &["3269: 6.1.37", "38236: 6.1.143"]),
        ("6.1.143", &[]),
        ("6.1.174+rpt-rpi-v8", &[]),
        ("6.1.175", &["46242: 6.1.178"]),
        ("6.1.178", &[]),
        ("6.4.1", &["38236: 6.6.96, 6.12.36 and 6.15.5", epoll]),
        ("6.6.87.2-microsoft-standard-WSL2", &["38236: 6.6.96", "46242: 6.6.144"]),
        ("6.12.94+deb13-amd64", &["46242: 6.12.95"]),
        ("6.18.32-fc", &["46242: 6.18.33"]),
        ("6.18.44-fc-v669", &[]),
        ("7.0.9", &["46242: 7.0.10"]),
        ("7.1.0-rc1", &[]),
    ];
    for (release, expected) in cases {
        assert_eq!(short(&of_kernel(release)), expected, "{release}");
    }
}

#[test]
fn a_number_that_says_nothing_gives_no_warning() {
    for release in [
        "5.15.0-91-generic",
        "6.8.0-1010-aws",
        "6.1.0-18-amd64",
        "6.1.0-18-cloud-arm64",
        "5.14.0-427.el9.x86_64",
        "5.14.21-150500.55-default",
        "",
        "unknown",
        ".1",
        "99999999999.1.1",
    ] {
        assert_eq!(of_kernel(release), [], "{release}");
    }
    for version in ["", "N/A", "library-import", "v"] {
        assert_eq!(of_runc(version), [], "{version}");
    }
}

#[test]
fn versions_as_docker_gives_them() {
    for (text, numbers, candidate) in [
        ("20.10.24+dfsg1", [20, 10, 24], None),
        ("5:28.5.2-1~debian.12~bookworm", [28, 5, 2], None),
        ("v1.7.27", [1, 7, 27], None),
        ("1.6.20~ds1", [1, 6, 20], None),
        ("1.2.0-rc.1", [1, 2, 0], Some(1)),
        ("1.0.0-rc93", [1, 0, 0], Some(93)),
        ("1.0.0~rc93+ds1", [1, 0, 0], Some(93)),
        ("7.1", [7, 1, 0], None),
    ] {
        assert_eq!(Version::parse(text), Some(Version { numbers, candidate }), "{text}");
    }
}

#[test]
fn a_warning_is_one_line_that_says_what_to_do() {
    let versions = Versions {
        engine: Some("20.10.24+dfsg1".to_owned()),
        containerd: Some("1.6.20~ds1".to_owned()),
        runc: Some("1.1.5+ds1".to_owned()),
        kernel: "6.18.20".to_owned(),
    };
    let lines: Vec<_> = warnings(&versions).iter().map(Warning::to_string).collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(
        lines[1],
        "runc 1.1.5+ds1: CVE-2025-31133, CVE-2025-52565, CVE-2025-52881 (container escape) are \
         fixed in 1.2.8, 1.3.3 and 1.4.0: upgrade runc (a distribution may have put the fix \
         into an older version: see its security tracker)"
    );
    assert_eq!(
        lines[3],
        "Linux 6.18.20: CVE-2026-46242 (container escape) is fixed in 6.18.33: upgrade Linux \
         and reboot (a distribution may have put the fix into an older version: see its \
         security tracker)"
    );
}
