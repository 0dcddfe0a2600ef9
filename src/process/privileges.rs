//! What the process gives up once everything is bound: the file system outside of its jail, its
//! groups, its user.
//!
//! In HAProxy's order: `chroot` needs the privileges, the groups need those of the user. What a
//! confined process still needs from outside is read before.

use std::io;

use crate::config::plan::{Jail, ProcessSettings};
use crate::control::listeners::error_text;
use crate::control::messages::Console;
use crate::sys::process as system;

/// Gives up what the configuration says. Must be called before any thread is started, because the
/// kernel's user and group belong to a thread.
pub(super) fn give_up(wanted: &ProcessSettings, console: &Console) -> Result<(), String> {
    let failed =
        |what: String| move |error: io::Error| format!("Cannot {what}: {}.", error_text(&error));
    if let Some(jail) = &wanted.chroot {
        // Out of reach inside, and kept once they were asked for.
        let _ = jiff::tz::TimeZone::system();
        system::host_name();
        system::reach_service_manager();
        match jail {
            Jail::Auto => system::confine_nowhere().map_err(failed("chroot(auto)".to_owned()))?,
            Jail::Directory(path) => {
                system::confine(path).map_err(failed(format!("chroot({})", path.display())))?
            }
        }
    }
    if let Some(id) = wanted.group_id {
        if system::drop_groups().is_err() {
            console.warning(
                "Failed to drop supplementary groups. Using 'gid'/'group' without 'uid'/'user' is \
                 generally useless.",
            );
        }
        system::set_group(id).map_err(failed(format!("set gid {id}")))?;
    }
    if let Some(id) = wanted.user_id {
        system::set_user(id).map_err(failed(format!("set uid {id}")))?;
    }
    Ok(())
}
