//! What was used and what it cost, for its owner.

use super::{PredictionService, Result};
use crate::domain::{Caller, Usage, UsageQuery};

impl PredictionService {
    /// The caller's account's usage.
    pub async fn usage(&self, caller: Caller, query: &UsageQuery) -> Result<Vec<Usage>> {
        Ok(self.shared.store.usage(Some(caller.account_id), query).await?)
    }
}
