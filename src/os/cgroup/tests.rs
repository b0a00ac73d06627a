//! Tests of the cgroups, with folders in place of the kernel's.
use super::*;
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder in place of `/`, with one hierarchy of version 2 in which this process is in `group`; removed at the end.
struct Machine(PathBuf);

impl Machine {
    fn new(group: &str) -> Machine {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("clusterd-cgroup-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let machine = Machine(std::env::temp_dir().join(name));
        machine.file("proc/self/cgroup", &format!("0::{group}\n"));
        machine.file("proc/self/mountinfo", "30 23 0:26 / /cg rw - cgroup2 cgroup2 rw\n");
        machine
    }

    fn file(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.0.join(path)).unwrap()
    }

    fn base(&self) -> Base {
        Base::find_under(&self.0, "clusterd-web-1f", None).unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const LIMITS: Limits = Limits { memory_max: Some(4096), memory_high: None, cpu_max: Some(150_000), pids_max: None };

#[test]
#[cfg_attr(miri, ignore = "miri does not know openat")]
fn limits_are_written_and_taken_back() {
    let machine = Machine::new("/a");
    let app = "cg/a/clusterd-web-1f/app-web";
    for file in ["memory.max", "cpu.max", "pids.max", "cgroup.procs"] {
        machine.file(&format!("{app}/{file}"), "");
    }
    let mut base = machine.base();
    assert!(base.make("web", &LIMITS, &Limits::default()).unwrap().is_empty());
    assert_eq!(machine.text(&format!("{app}/memory.max")), "4096");
    assert_eq!(machine.text(&format!("{app}/cpu.max")), "150000 100000");
    assert_eq!(machine.text(&format!("{app}/pids.max")), "", "nobody has asked for one");
    assert_eq!(base.entry("web").unwrap().files.len(), 1);
    assert!(base.make("web", &Limits::default(), &LIMITS).unwrap().is_empty());
    assert!(machine.text(&format!("{app}/memory.max")).starts_with("max"));
    assert!(machine.text(&format!("{app}/cpu.max")).starts_with("max 100000"));
}

#[test]
#[cfg_attr(miri, ignore = "miri does not know openat")]
fn a_group_that_was_not_delegated_is_left_as_it_is() {
    let machine = Machine::new("/user.slice/session-1.scope");
    let own = "cg/user.slice/session-1.scope";
    machine.file(&format!("{own}/cgroup.controllers"), "cpu memory\n");
    machine.file(&format!("{own}/cgroup.subtree_control"), "");
    machine.file(&format!("{own}/cgroup.type"), "domain\n");
    let mut base = machine.base();
    let unmet = base.make("web", &LIMITS, &Limits::default()).unwrap();
    assert!(matches!(unmet[0], (Limit::MemoryMax, CgroupError::NotDelegated(_))), "{unmet:?}");
    assert_eq!(machine.text(&format!("{own}/cgroup.subtree_control")), "");
    assert!(!machine.0.join(own).join(LEAF).exists());
    // And one without such a controller says that.
    let unmet = base.make("web", &Limits { pids_max: Some(9), ..Limits::default() }, &Limits::default()).unwrap();
    let none = matches!(unmet[0], (Limit::PidsMax, CgroupError::NoController { controller: "pids", .. }));
    assert!(none, "{unmet:?}");
}

#[test]
#[cfg_attr(miri, ignore = "miri does not know openat")]
fn the_processes_of_a_container_are_moved_aside_before_its_controllers_are_used() {
    let machine = Machine::new("/");
    machine.file("cg/cgroup.controllers", "cpu memory\n");
    machine.file("cg/cgroup.subtree_control", "");
    machine.file("cg/cgroup.type", "domain\n");
    machine.file("cg/cgroup.procs", "4242\n");
    machine.file(&format!("cg/{LEAF}/cgroup.procs"), "");
    let mut base = machine.base();
    // The kernel would make the files of the group; here there are none to be written.
    let memory = Limits { memory_max: Some(4096), ..Limits::default() };
    machine.file("cg/clusterd-web-1f/cgroup.subtree_control", "");
    assert!(!base.make("web", &memory, &Limits::default()).unwrap().is_empty());
    assert_eq!(machine.text(&format!("cg/{LEAF}/cgroup.procs")), "4242");
    assert_eq!(machine.text("cg/cgroup.subtree_control"), "+memory");
    assert_eq!(machine.text("cg/clusterd-web-1f/cgroup.subtree_control"), "+memory");
    // The next clusterd begins aside, and makes its base beside the first one's.
    machine.file("proc/self/cgroup", &format!("0::/{LEAF}\n"));
    assert_eq!(machine.base().parts[0].own, machine.0.join("cg"));
}

/// The kernel lets nobody limit what is in a delegated group while any process is in it, clusterd's own included.
#[test]
#[cfg_attr(miri, ignore = "miri does not know openat")]
fn a_clusterd_in_a_delegated_group_moves_itself_aside_too() {
    let machine = Machine::new("/");
    machine.file("cg/cgroup.controllers", "memory\n");
    machine.file("cg/cgroup.subtree_control", "");
    machine.file("cg/cgroup.type", "domain\n");
    machine.file("cg/cgroup.procs", &format!("{}\n", std::process::id()));
    machine.file(&format!("cg/{LEAF}/cgroup.procs"), "");
    // The kernel would make the files of the group; here there are none to be written.
    let memory = Limits { memory_max: Some(4096), ..Limits::default() };
    assert!(!machine.base().make("web", &memory, &Limits::default()).unwrap().is_empty());
    assert_eq!(machine.text(&format!("cg/{LEAF}/cgroup.procs")), std::process::id().to_string());
}

/// systemd starts the process of a unit again in the unit's group, where no process may be once its controllers are in use.
#[test]
#[cfg_attr(miri, ignore = "miri does not know openat")]
fn a_unit_has_limits_where_its_processes_start_aside() {
    let machine = Machine::new("/system.slice/clusterd.service");
    let own = "cg/system.slice/clusterd.service";
    machine.file(&format!("{own}/cgroup.controllers"), "memory\n");
    machine.file(&format!("{own}/cgroup.subtree_control"), "");
    machine.file(&format!("{own}/cgroup.type"), "domain\n");
    machine.file(&format!("{own}/clusterd-web-1f/cgroup.subtree_control"), "");
    let unmet = || {
        let unit = Some(OsStr::new("clusterd.service"));
        let mut base = Base::find_under(&machine.0, "clusterd-web-1f", unit).unwrap();
        base.make("web", &Limits { memory_max: Some(4096), ..Limits::default() }, &Limits::default()).unwrap().remove(0)
    };
    assert!(matches!(unmet(), (Limit::MemoryMax, CgroupError::NoSubgroup(_))));
    assert_eq!(machine.text(&format!("{own}/cgroup.subtree_control")), "");
    machine.file("proc/self/cgroup", &format!("0::/system.slice/clusterd.service/{LEAF}\n"));
    // The kernel would make the files of the group; here there are none to be written.
    assert!(matches!(unmet(), (Limit::MemoryMax, CgroupError::System { .. })));
    assert_eq!(machine.text(&format!("{own}/cgroup.subtree_control")), "+memory");
}

#[test]
#[cfg_attr(miri, ignore = "miri does not know file locks")]
fn names_are_checked_before_they_become_paths() {
    let machine = Machine::new("/a");
    fs::create_dir_all(machine.0.join("cg/a")).unwrap();
    for bad in ["", "..", "../x", "clusterd-a/b", "web", "clusterd-\0"] {
        assert!(Base::find_under(&machine.0, bad, None).is_err(), "{bad:?}");
    }
    let mut base = machine.base();
    let long = "x".repeat(CGROUP_NAME_CHARS_MAX + 1);
    for bad in ["", "a/b", "a b", "../../x", long.as_str()] {
        assert!(matches!(base.make(bad, &LIMITS, &LIMITS), Err(CgroupError::Name(_))), "{bad:?}");
    }
    assert_eq!(end_leftovers("../x"), 0);
}

#[test]
#[cfg_attr(miri, ignore = "miri does not know openat")]
fn a_base_has_one_user_and_an_empty_one_that_nobody_uses_is_removed() {
    let machine = Machine::new("/a");
    fs::create_dir_all(machine.0.join("cg/a/clusterd-old-2e/app-web")).unwrap();
    let mut base = machine.base();
    base.make("web", &Limits::default(), &Limits::default()).unwrap();
    assert!(!machine.0.join("cg/a/clusterd-old-2e").exists());
    let mut other = machine.base();
    assert!(matches!(other.make("web", &Limits::default(), &Limits::default()), Err(CgroupError::InUse(_))));
    assert!(base.end("web"));
    base.remove();
    assert!(!machine.0.join("cg/a/clusterd-web-1f").exists());
}

#[test]
fn the_group_of_a_process_names_its_app() {
    let of = |text: &str| processes::app_in(text, "clusterd-site-1f");
    let in_v1 = "5:memory:/x/clusterd-site-1f/app-web.2/below\n0::/elsewhere\n";
    assert_eq!(of(in_v1).as_deref(), Some("web.2"));
    assert_eq!(of("0::/user.slice/clusterd-site-1f/app-api\n").as_deref(), Some("api"));
    assert_eq!(of("0::/clusterd-other-2a/app-api\n"), None);
    assert_eq!(of("0::/clusterd-site-1f\n"), None);
    assert_eq!(of(""), None);
}
