//! What goes wrong on order: errors, connections that break, answers that wait.

use super::failure::ApiFailure;
use super::request::{ApiRequest, ApiVerb, ObjectKind};

/// Requests that do not get their answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiFault {
    /// Of this verb; any, if absent.
    pub verb: Option<ApiVerb>,
    /// Of this kind; any, if absent.
    pub kind: Option<ObjectKind>,
    /// How many of them.
    pub times: usize,
    /// What they get.
    pub effect: FaultEffect,
}

/// What a request gets instead of its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultEffect {
    /// This failure.
    Failure(ApiFailure),
    /// The connection breaks, and nothing was done.
    Cut,
    /// It is done, and the connection breaks before the answer.
    AnswerLost,
    /// The answer, once [`ApiServer::release`](super::ApiServer::release) is called.
    Held,
}

impl ApiFault {
    /// The next `times` writes of slices: creations, updates and deletions alike.
    #[must_use]
    pub fn of_slices(verb: ApiVerb, times: usize, effect: FaultEffect) -> Self {
        Self { verb: Some(verb), kind: Some(ObjectKind::ResourceSlice), times, effect }
    }

    fn is_for(&self, request: &ApiRequest) -> bool {
        self.verb.is_none_or(|verb| verb == request.verb)
            && self.kind.is_none_or(|kind| kind == request.kind)
    }
}

/// The fault of this request, which is used up.
pub(super) fn take(faults: &mut Vec<ApiFault>, request: &ApiRequest) -> Option<FaultEffect> {
    let at = faults.iter().position(|fault| fault.times > 0 && fault.is_for(request))?;
    faults[at].times -= 1;
    let effect = faults[at].effect.clone();
    faults.retain(|fault| fault.times > 0);
    Some(effect)
}
