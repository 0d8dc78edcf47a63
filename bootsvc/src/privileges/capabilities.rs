//! Changing the user, and giving up all that he need not have.

use super::Account;
use nix::unistd::{
    Gid, ROOT, geteuid, getgrouplist, setegid, seteuid, setgroups, setresgid, setresuid,
};
use rustix::io::Errno;
use rustix::process::{parent_process_death_signal, set_parent_process_death_signal};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_keep_capabilities, set_no_new_privs,
};
use std::ffi::CString;
use std::io;

/// Becomes the user for good, and a member of one more group if there is one. Of root's capabilities these are left, as far as we had them: here, in all threads that
/// are started from now on, and in programs that they start. Nothing can bring more back.
pub(super) fn become_user(
    account: &Account,
    group: Option<Gid>,
    wanted: CapabilitySet,
) -> io::Result<()> {
    // Who started us with it wants it still; the kernel forgets it when the user changes.
    let death_signal = parent_process_death_signal()?;
    let kept = capabilities(None)?.permitted & wanted;
    set_groups(account, group)?;
    for_all_others(kept, remove_capability_from_bounding_set)?;
    set_keep_capabilities(true)?;
    setresgid(account.gid, account.gid, account.gid)?;
    setresuid(account.uid, account.uid, account.uid)?;
    set_keep_capabilities(false)?;
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: kept })?;
    clear_ambient_capability_set()?;
    for capability in kept {
        configure_capability_in_ambient_set(capability, true)?;
    }
    set_no_new_privs(true)?;
    set_parent_process_death_signal(death_signal)?;
    Ok(())
}

/// Uses no capability any more; programs that are started have them all the same.
pub(super) fn use_none() -> io::Result<()> {
    let sets = capabilities(None)?;
    // Root's own are his user id's.
    if !geteuid().is_root() {
        set_capabilities(None, CapabilitySets { effective: CapabilitySet::empty(), ..sets })?;
    }
    Ok(())
}

/// Keeps no capability: what root's user id brings comes back with no program that is started, either.
pub(super) fn give_up() -> io::Result<()> {
    clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    set_no_new_privs(true)?;
    Ok(())
}

/// Works as the user until `seteuid` makes this process root again.
pub(super) fn begin_as(account: &Account, wanted: CapabilitySet) -> io::Result<()> {
    setegid(account.gid)?;
    seteuid(account.uid)?;
    let sets = capabilities(None)?;
    set_capabilities(None, CapabilitySets { effective: sets.permitted & wanted, ..sets })?;
    Ok(())
}

/// Is root again after [`begin_as`].
pub(super) fn end_as() -> io::Result<()> {
    // This brings root's capabilities back.
    seteuid(ROOT)?;
    setegid(Gid::from_raw(0))?;
    Ok(())
}

fn set_groups(account: &Account, more: Option<Gid>) -> nix::Result<()> {
    let mut groups = match account.user.as_deref().map(CString::new) {
        Some(Ok(name)) => getgrouplist(&name, account.gid)?,
        _ => vec![account.gid],
    };
    groups.extend(more.filter(|more| !groups.contains(more)));
    setgroups(&groups)
}

/// Calls this for each capability that the kernel knows and that is not kept.
fn for_all_others(
    kept: CapabilitySet,
    act: impl Fn(CapabilitySet) -> Result<(), Errno>,
) -> io::Result<()> {
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if kept.contains(capability) {
            continue;
        }
        match act(capability) {
            // The first that the kernel does not know: there are none behind it.
            Err(Errno::INVAL) => return Ok(()),
            done => done?,
        }
    }
    Ok(())
}
