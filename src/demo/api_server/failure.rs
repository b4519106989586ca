//! How the API server refuses: a `Status` object and its HTTP code.

use axum::http::StatusCode;
use serde_json::{Value, json};

/// An error of the API.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code} {reason}: {message}")]
pub struct ApiFailure {
    /// The HTTP code.
    pub code: u16,
    /// The API's word for it, for example `Conflict`.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
    /// When to ask again.
    pub retry_after: Option<u32>,
}

impl ApiFailure {
    /// The failure that this HTTP code stands for.
    #[must_use]
    pub fn of_code(code: u16, message: impl Into<String>) -> Self {
        let reason = match code {
            400 => "BadRequest",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "NotFound",
            405 => "MethodNotAllowed",
            409 => "Conflict",
            410 => "Expired",
            422 => "Invalid",
            429 => "TooManyRequests",
            503 => "ServiceUnavailable",
            504 => "Timeout",
            _ => "InternalError",
        };
        Self { code, reason, message: message.into(), retry_after: None }
    }

    pub(super) fn not_found(plural: &str, name: &str) -> Self {
        Self::of_code(404, format!("{plural} {name:?} not found"))
    }

    pub(super) fn already_exists(plural: &str, name: &str) -> Self {
        let message = format!("{plural} {name:?} already exists");
        Self { reason: "AlreadyExists", ..Self::of_code(409, message) }
    }

    pub(super) fn changed(plural: &str, name: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {plural} {name:?}: the object has been modified; \
             please apply your changes to the latest version and try again"
        );
        Self::of_code(409, message)
    }

    pub(super) fn invalid(kind: &str, name: &str, problems: &[String]) -> Self {
        Self::of_code(422, format!("{kind} {name:?} is invalid: {}", problems.join("; ")))
    }

    pub(super) fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The body of the response, and of a watch's `ERROR` event.
    pub(super) fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if let Some(seconds) = self.retry_after {
            status["details"] = json!({ "retryAfterSeconds": seconds });
        }
        status
    }
}
