//! What operators, agents and tracked servers say of a server: in service, in drain, in
//! maintenance.
//!
//! A server has a state of its own and the one of the server that it tracks; the stricter one
//! holds. A server that leaves maintenance begins as at the start: its checks know nothing of it.

use std::sync::Arc;

use super::apply::{self, ALERT, Applied, NOTICE};
use super::{Shared, followers, lines};
use crate::health::{Rules, Transition, Witness};
use crate::lb::{Admin, Backend, Health, Server};

/// What is said of one server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Standing {
    /// Of itself.
    pub(super) own: Admin,
    /// Of the server that it tracks.
    pub(super) inherited: Admin,
}

impl Standing {
    /// A server that tracks no other.
    pub(super) fn of(own: Admin) -> Standing {
        let inherited = Admin::Ready;
        Standing { own, inherited }
    }

    /// What holds.
    pub(super) fn effective(self) -> Admin {
        self.own.max(self.inherited)
    }

    /// Whether it is only so because of the server that it tracks.
    pub(super) fn is_inherited(self) -> bool {
        self.own < self.inherited
    }
}

/// Sets a server's own state.
pub(super) fn set_own(shared: &Shared, backend: &Backend, server: &Arc<Server>, own: Admin) {
    let standing = shared.standing_of(server.id, |standing| *standing);
    set(shared, backend, server, Standing { own, ..standing });
}

/// Sets the state that a server takes from the one it tracks.
pub(super) fn set_inherited(
    shared: &Shared,
    backend: &Backend,
    server: &Arc<Server>,
    inherited: Admin,
) {
    let standing = shared.standing_of(server.id, |standing| *standing);
    let next = Standing {
        inherited,
        ..standing
    };
    set(shared, backend, server, next);
}

fn set(shared: &Shared, backend: &Backend, server: &Arc<Server>, next: Standing) {
    let before = shared.standing_of(server.id, |standing| std::mem::replace(standing, next));
    if before == next {
        return;
    }
    let (from, to) = (before.effective(), next.effective());
    if from == to {
        report_same(shared, backend, server, before, next);
        return;
    }
    let was_up = server.health() != Health::Down;
    if from == Admin::Maintenance {
        begin_anew(shared, server);
    }
    let leaves_service = to == Admin::Maintenance || (was_up && from == Admin::Ready);
    let direction = if leaves_service {
        Transition::Down
    } else {
        Transition::Up
    };
    let change = apply::put_in_force(shared, backend, server, direction, |server| {
        server.set_admin(to);
    });
    report(shared, backend, server, (before, next), was_up, &change);
    apply::report_last(shared, backend, &change);
    let ended = to == Admin::Maintenance && was_up;
    let began = from == Admin::Maintenance && server.health() != Health::Down;
    match (ended, began) {
        (true, _) => followers::after_change(shared, backend, server, Transition::Down),
        (_, true) => followers::after_change(shared, backend, server, Transition::Up),
        _ => followers::follow(shared, server),
    }
}

/// The checks of a server begin as at the start, and what its sessions have shown is forgotten.
fn begin_anew(shared: &Shared, server: &Server) {
    let is_up = shared.verdicts_of(server.id, |verdicts| {
        verdicts.hear(Witness::Traffic, true);
        if let Some(check) = &server.plan.check {
            verdicts.hear(Witness::Check, check.init_state.is_up());
        }
        verdicts.is_up()
    });
    if let Some(check) = &server.plan.check {
        server.restart_checks();
        apply::report_of(server).health = Rules::of(check).health();
    }
    let health = match (is_up, server.health()) {
        (true, Health::NotChecked) => Health::NotChecked,
        (true, _) => Health::Up,
        (false, _) => Health::Down,
    };
    server.set_health(health);
}

/// Writes a change of what holds.
fn report(
    shared: &Shared,
    backend: &Backend,
    server: &Server,
    (before, next): (Standing, Standing),
    was_up: bool,
    change: &Applied,
) {
    let subject = apply::subject(backend, server);
    let effect = apply::effect(backend, server, change);
    let via = match &server.plan.watch.tracks {
        Some(tracked) if next.is_inherited() => format!(" via {}", tracked.name),
        _ => String::new(),
    };
    let (from, to) = (before.effective(), next.effective());
    let is_up = server.health() != Health::Down;
    let (level, line) = match (from, to) {
        (_, Admin::Maintenance) if !was_up => {
            (NOTICE, lines::was_down_now_maintenance(subject, &via))
        }
        (_, Admin::Maintenance) => {
            let level = if from == Admin::Ready { ALERT } else { NOTICE };
            (level, lines::maintenance(subject, &via, effect))
        }
        (Admin::Maintenance, _) => {
            let forced = before.own == Admin::Maintenance;
            let line = lines::left_maintenance(subject, is_up, to == Admin::Drain, forced);
            (NOTICE, line)
        }
        (Admin::Ready, Admin::Drain) => (NOTICE, lines::drain(subject, &via, effect)),
        (_, _) => (NOTICE, lines::left_drain(subject, is_up)),
    };
    apply::say(shared, backend, level, line);
    if from == Admin::Maintenance {
        remind_of_drain(shared, backend, server);
    }
}

/// Writes that what holds goes on for another reason, where that is news.
fn report_same(
    shared: &Shared,
    backend: &Backend,
    server: &Server,
    before: Standing,
    next: Standing,
) {
    match next.effective() {
        Admin::Maintenance if next.own == Admin::Maintenance => {
            // It would have left with the one that it tracks.
            if before.inherited == Admin::Maintenance && before.own == next.own {
                let subject = apply::subject(backend, server);
                apply::say(shared, backend, NOTICE, lines::still_maintenance(subject));
            }
        }
        Admin::Drain => remind_of_drain(shared, backend, server),
        Admin::Maintenance | Admin::Ready => {}
    }
}

/// Writes that a server is still in drain, if it is, after a line that may let one think otherwise.
pub(super) fn remind_of_drain(shared: &Shared, backend: &Backend, server: &Server) {
    if server.admin() != Admin::Drain {
        return;
    }
    let standing = shared.standing_of(server.id, |standing| *standing);
    let tracked = server.plan.watch.tracks.as_ref();
    let via = tracked.filter(|_| standing.is_inherited());
    let via = via.map(|tracked| &*tracked.name);
    let line = lines::still_drain(apply::subject(backend, server), via);
    apply::say(shared, backend, NOTICE, line);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stricter_state_holds() {
        let standing = |own, inherited| Standing { own, inherited };
        let all = [Admin::Ready, Admin::Drain, Admin::Maintenance];
        for (index, own) in all.into_iter().enumerate() {
            assert_eq!(standing(own, Admin::Ready).effective(), own);
            assert_eq!(Standing::of(own).effective(), own);
            for inherited in &all[..=index] {
                assert_eq!(standing(own, *inherited).effective(), own);
                assert!(!standing(own, *inherited).is_inherited());
            }
        }
        let drained = standing(Admin::Ready, Admin::Drain);
        assert!(drained.is_inherited() && drained.effective() == Admin::Drain);
    }
}
