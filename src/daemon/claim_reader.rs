//! Fetches claims from the Kubernetes API.

use std::sync::Arc;

use super::dra_service::ClaimReader;
use crate::host::kube_api::KubeApi;
use crate::model::dra::claim::ClaimRef;
use crate::wire::dra_objects;

/// A reader of this API server's claims.
#[must_use]
pub fn claim_reader(api: KubeApi) -> ClaimReader {
    Arc::new(move |claim: ClaimRef| {
        let api = api.clone();
        Box::pin(async move {
            let found = api.claim(&claim.namespace, &claim.name).await;
            let found = found.map_err(|error| format!("claim {claim}: {error}; retrying"))?;
            Ok(found.as_ref().map(dra_objects::claim))
        })
    })
}
