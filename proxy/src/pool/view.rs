//! What the store says of a function, and what becomes of its replicas by that.

use control::{
    name::ReplicaId,
    service::{GoneCause, Replica, Seen, ServiceView, Wish},
};

use super::{Member, Pool, State};

impl Pool {
    /// Takes over what the store says: which deployment is live, who has to go, what stands in the
    /// way. The switch from one deployment to the next is this one step.
    pub(crate) fn apply(&self, view: &ServiceView) {
        let mut state = self.state.lock();
        state.deleted = view.route.is_none();
        state.live = view.route.as_ref().and_then(|route| route.live_deployment);
        state.obstacle = view.obstacle.clone();

        let members: Vec<ReplicaId> = state.members.keys().cloned().collect();
        for id in members {
            match view.replicas.iter().find(|replica| replica.id == id) {
                // Another process gave it up.
                Some(Replica { seen: Some(Seen::Gone { .. }), .. }) => {
                    state.members.remove(&id);
                }
                Some(Replica { wish: Wish::Serve, .. }) => {}
                Some(Replica { wish: Wish::Drain, .. }) => self.drain(&mut state, &id),
                None if state.deleted => {
                    state.members.remove(&id);
                }
                // Control ends a container before it forgets it, and its connection ends with it. So
                // the store has lost this one, and control puts it there again.
                None => {}
            }
        }
        state.rebuild_free();
        self.serve_waiting(&mut state);
        self.look_behind_slow_ones(&mut state);
        self.refuse_waiting(&mut state);
        self.say_again(&mut state, view);
    }

    pub(super) fn drain(&self, state: &mut State, id: &ReplicaId) {
        let Some(member) = state.members.get_mut(id) else { return };
        member.draining = true;
        if member.link.is_some() {
            self.remove(state, id, GoneCause::Drained);
        }
    }
}

impl State {
    pub(super) fn rebuild_free(&mut self) {
        let live = self.live;
        let members = &self.members;
        let eligible = |member: &Member| {
            member.link.is_some() && Some(member.deployment) == live && !member.draining
        };
        self.free.retain(|id| members.get(id).is_some_and(eligible));
        let fresh: Vec<_> = members
            .iter()
            .filter(|(id, member)| eligible(member) && !self.free.contains(id))
            .map(|(id, _)| id.clone())
            .collect();
        self.free.extend(fresh);
    }
}
