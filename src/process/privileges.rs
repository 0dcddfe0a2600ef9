//! What the process gives up once everything is bound: the file system outside of its jail, its
//! groups, its user. What it keeps, if the configuration needs it, is the right to connect from
//! addresses that aren't the machine's.
//!
//! In HAProxy's order: `chroot` needs the privileges, the groups need those of the user. What a
//! confined process still needs from outside is read before.

use std::io;

use crate::config::plan::{Jail, Plan};
use crate::control::listeners::error_text;
use crate::control::messages::Console;
use crate::sys::{capabilities, process as system, stream};

/// Gives up what the configuration says. Must be called before any thread is started, because the
/// kernel's user and group belong to a thread.
pub(super) fn give_up(plan: &Plan, console: &Console) -> Result<(), String> {
    let wanted = &plan.global.process;
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
    // Root keeps all of them anyway, as HAProxy's does.
    let keeps = plan.first_foreign().is_some() && wanted.user_id.is_some_and(|id| id > 0);
    if keeps {
        // What can't be kept is missed below.
        let _ = capabilities::keep();
    }
    if let Some(id) = wanted.user_id {
        system::set_user(id).map_err(failed(format!("set uid {id}")))?;
    }
    if keeps {
        let _ = capabilities::take_foreign_addresses();
    }
    may_have_foreign_addresses(plan)
}

/// Says at the start what every connection would fail with.
fn may_have_foreign_addresses(plan: &Plan) -> Result<(), String> {
    let Some((proxy, server)) = plan.first_foreign() else {
        return Ok(());
    };
    stream::may_be_transparent().map_err(|error| {
        format!(
            "Server '{}/{}' has a 'source' with 'usesrc' ({}), which needs full privileges: \
             CAP_NET_ADMIN or CAP_NET_RAW ({}).",
            proxy.name,
            server.name,
            server.place,
            error_text(&error)
        )
    })
}
