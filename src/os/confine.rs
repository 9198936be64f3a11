//! Confines the node: what reads packets, queries and requests of strangers keeps little of root.
//!
//! In: the configuration. Out: this process and its children without what they never need. Must
//! not: run once there is a second thread, which would keep everything; stop a node on a kernel
//! that lacks any of it. The guard keeps root, and reads nothing from the network.
//! Read first: capabilities(7), seccomp(2), landlock(7); README, "What it may do on a host".

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use landlock::{
    ABI, AccessFs, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr as _, RulesetCreated,
    RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};
use nix::libc;
use nix::unistd::Group;
use rustix::io::Errno;
use rustix::process::Gid;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capability_is_in_bounding_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs, set_thread_groups,
};
use seccompiler::{SeccompAction, SeccompFilter};

use crate::config::Config;
use crate::web::place::Place;

use super::{file, init};

/// Addresses, sockets of protocols, ports below 1024; and files of another owner, as access logs
/// and pages of a web server's user are.
const KEPT: CapabilitySet = CapabilitySet::NET_ADMIN
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::DAC_OVERRIDE);

/// Calls that change the machine, other processes, or who this one is. Refused with EPERM.
const REFUSED: &[libc::c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mknodat,
    libc::SYS_open_by_handle_at,
    libc::SYS_perf_event_open,
    libc::SYS_personality,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_setfsgid,
    libc::SYS_setfsuid,
    libc::SYS_setgid,
    libc::SYS_setgroups,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_setregid,
    libc::SYS_setresgid,
    libc::SYS_setresuid,
    libc::SYS_setreuid,
    libc::SYS_settimeofday,
    libc::SYS_setuid,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
];

/// An appliance's node writes its update to the disk: it mounts, and has no Landlock, which forbids
/// that. Its root is a file system in memory, and read-only are the others.
const REFUSED_ELSEWHERE: &[libc::c_long] = &[libc::SYS_mount, libc::SYS_umount2];

/// How much of the sandbox this kernel has, in words of a note.
pub(super) fn confine(config: &Config, config_path: &str) -> io::Result<String> {
    let is_appliance = init::is_appliance();
    join_groups(config, config_path)?;
    let kept = if is_appliance { KEPT.union(CapabilitySet::SYS_ADMIN) } else { KEPT };
    let count = drop_capabilities(kept)?;
    // Linux before 3.5 has neither this nor filters of calls.
    let is_filtered = match set_no_new_privs(true) {
        Ok(()) => refuse_calls(is_appliance)?,
        Err(Errno::INVAL) => false,
        Err(error) => return Err(error.into()),
    };
    let calls = if is_filtered { "calls filtered" } else { "no filter of calls in this kernel" };
    let writes = if is_appliance {
        ""
    } else if is_filtered && restrict_writes(config, config_path)? {
        ", writes in its own folders only"
    } else {
        ", no Landlock in this kernel"
    };
    Ok(format!("{count} capabilities kept, {calls}{writes}"))
}

/// The groups of the sockets that it makes, and of the configuration that it may save: only a
/// member may give them a file without CAP_CHOWN.
fn join_groups(config: &Config, config_path: &str) -> io::Result<()> {
    let names = [&config.console.group, &config.web.fastcgi_group];
    let found = names.into_iter().filter_map(|name| Group::from_name(name).ok().flatten());
    let file = fs::metadata(config_path).map(|file| file.gid());
    let numbers = found.map(|group| group.gid.as_raw()).chain(file);
    let groups: Vec<Gid> = numbers.map(Gid::from_raw).collect();
    match set_thread_groups(&groups) {
        // Started without the right to: then the sockets stay root's own.
        Ok(()) | Err(Errno::PERM) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// How many are left.
fn drop_capabilities(kept: CapabilitySet) -> io::Result<u32> {
    for bit in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        if kept.contains(one) {
            continue;
        }
        match capability_is_in_bounding_set(one) {
            Ok(true) => {}
            Ok(false) => continue,
            // Above the kernel's last.
            Err(_) => break,
        }
        match remove_capability_from_bounding_set(one) {
            // Started without the right to: a process that cannot raise it has no more anyway.
            Ok(()) | Err(Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let held = rustix::thread::capabilities(None)?;
    let rest = held.permitted.intersection(kept);
    let sets =
        CapabilitySets { effective: rest, permitted: rest, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets)?;
    Ok(rest.bits().count_ones())
}

/// False: the kernel has no filters.
fn refuse_calls(is_appliance: bool) -> io::Result<bool> {
    let elsewhere = REFUSED_ELSEWHERE.iter().filter(|_| !is_appliance);
    // A call without conditions: whatever its arguments are.
    let rules: BTreeMap<i64, Vec<_>> =
        REFUSED.iter().chain(elsewhere).map(|&call| (call, Vec::new())).collect();
    let refusal = SeccompAction::Errno(u32::try_from(libc::EPERM).map_err(io::Error::other)?);
    let arch = std::env::consts::ARCH.try_into().map_err(io::Error::other)?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refusal, arch);
    let program = filter.and_then(TryInto::try_into).map_err(io::Error::other)?;
    let program: seccompiler::BpfProgram = program;
    match seccompiler::apply_filter(&program) {
        Ok(()) => Ok(true),
        Err(seccompiler::Error::Seccomp(error) | seccompiler::Error::Prctl(error))
            if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) =>
        {
            Ok(false)
        }
        Err(error) => Err(io::Error::other(error)),
    }
}

/// False: the kernel has no Landlock, or it is switched off.
fn restrict_writes(config: &Config, config_path: &str) -> io::Result<bool> {
    let status = ruleset(config, config_path).map_err(io::Error::other)?.restrict_self();
    Ok(status.map_err(io::Error::other)?.ruleset != RulesetStatus::NotEnforced)
}

fn ruleset(config: &Config, config_path: &str) -> Result<RulesetCreated, RulesetError> {
    let write = AccessFs::from_write(ABI::V5);
    let socket = AccessFs::MakeSock | AccessFs::RemoveFile;
    let mut ruleset = Ruleset::default()
        .handle_access(write | AccessFs::Execute)?
        .scope(Scope::Signal)?
        .create()?;
    let log = Path::new(&config.web.access_log);
    let is_device = log.exists() && !log.is_file();
    // A log that is no file, as /dev/stdout, is not made anew.
    let log = if is_device { Some(log) } else { log.parent() };
    // SAVE CONFIG puts a new file in the old one's place, wherever a link to it is.
    let saved = fs::canonicalize(config_path).unwrap_or_else(|_| config_path.into());
    let named = [saved.parent(), log].into_iter().flatten();
    let ours = [file::STATE_DIR, file::RUN_DIR, "/var/tmp", "/tmp", "/dev/null"];
    for place in ours.into_iter().map(Path::new).chain(named) {
        ruleset = allow(ruleset, place, write)?;
    }
    let ports = config.web.fastcgi_listen.iter().filter_map(|place| match place {
        Place::Unix(path) => Some(path.as_str()),
        Place::Tcp(_) => None,
    });
    let sockets = ports.chain(config.sql.listen_socket.as_deref()).chain([file::SOCKET]);
    for place in sockets.filter_map(|path| Path::new(path).parent()) {
        ruleset = allow(ruleset, place, socket)?;
    }
    allow(ruleset, Path::new("/proc/self/exe"), AccessFs::Execute.into())
}

/// What is not there cannot be allowed, nor used.
fn allow(
    ruleset: RulesetCreated,
    place: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    match PathFd::new(place) {
        Ok(descriptor) => ruleset.add_rule(PathBeneath::new(descriptor, access)),
        Err(_) => Ok(ruleset),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::{env, process, thread};

    use rustix::thread::{capabilities, no_new_privs};

    use super::*;
    use crate::config::EXAMPLE;

    /// In a thread, which is all that is confined.
    #[test]
    fn a_confined_node_writes_where_it_has_to_and_cannot_change_the_machine() {
        let config = Config::parse(EXAMPLE).expect("the example");
        let name = format!("tandem-confined-{}", process::id());
        let (inside, outside) = (env::temp_dir().join(&name), Path::new("/var/lib").join(&name));
        let tried = thread::spawn(move || {
            let said = confine(&config, "/etc/tandem/tandem.toml").expect("is confined");
            let held = capabilities(None).expect("capabilities");
            assert!(KEPT.contains(held.effective) && KEPT.contains(held.permitted), "{said}");
            assert!(no_new_privs().expect("prctl"), "{said}");
            let status = fs::read_to_string("/proc/thread-self/status").expect("proc");
            assert_eq!(status.contains("Seccomp:\t2"), said.contains("calls filtered"), "{said}");
            assert_eq!(set_thread_groups(&[]), Err(Errno::PERM), "{said}");
            fs::write(&inside, "").and_then(|()| fs::remove_file(&inside)).expect("writes in /tmp");
            if said.contains("own folders only") {
                let denied = fs::write(&outside, "").expect_err("writes elsewhere");
                assert_eq!(denied.kind(), io::ErrorKind::PermissionDenied, "{said}");
                let denied = Command::new("/bin/true").status().expect_err("another program");
                assert_eq!(denied.kind(), io::ErrorKind::PermissionDenied, "{said}");
            }
        });
        tried.join().expect("what was tried");
    }
}
