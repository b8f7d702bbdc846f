//! What an operator does with keys and accounts. Whoever comes here has the scope for it.

use std::time::Duration;

use super::{Error, PredictionService, Result};
use crate::{
    domain::{AccountMode, AccountRecord, ApiKey, Budget, InvalidInput, KeyRecord, NanoUsd, NewKey},
    store,
};

impl PredictionService {
    /// Every key.
    pub async fn list_keys(&self) -> Result<Vec<KeyRecord>> {
        Ok(self.shared.store.list_keys().await?)
    }

    /// Makes a key, which is shown this once.
    pub async fn issue_key(&self, new: &NewKey) -> Result<ApiKey> {
        let key = ApiKey::generate().map_err(super::internal)?;
        self.shared.store.issue_key(new, &key).await?;
        Ok(key)
    }

    /// Ends a key: here at once, in other processes within five seconds.
    pub async fn revoke_key(&self, lookup: &str) -> Result<()> {
        let revoked = self.shared.store.revoke_key(lookup).await?;
        self.shared.keys.forget();
        found(revoked)
    }

    /// Gives a key a new secret; the one before still opens until `overlap` is over.
    pub async fn rotate_key(&self, lookup: &str, overlap: Duration) -> Result<ApiKey> {
        let key = ApiKey::generate().map_err(super::internal)?;
        let rotated = self.shared.store.rotate_key(lookup, &key, overlap).await?;
        self.shared.keys.forget();
        found(rotated).map(|()| key)
    }

    /// Sets or takes away what a key may spend.
    pub async fn set_budget(&self, lookup: &str, budget: Option<Budget>) -> Result<()> {
        found(self.shared.store.set_budget(lookup, budget).await?)
    }

    /// Every account.
    pub async fn list_accounts(&self) -> Result<Vec<AccountRecord>> {
        Ok(self.shared.store.list_accounts().await?)
    }

    /// Makes an account.
    pub async fn create_account(&self, name: &str, mode: AccountMode, max_in_flight: Option<u32>) -> Result<()> {
        match self.shared.store.create_account(name, mode, max_in_flight).await? {
            true => Ok(()),
            false => Err(InvalidInput::one("name", "is another account's").into()),
        }
    }

    /// Changes what an account may spend and how many predictions it may have in flight; `None` leaves it as it is.
    pub async fn change_account(
        &self,
        name: &str,
        mode: Option<AccountMode>,
        max_in_flight: Option<Option<u32>>,
    ) -> Result<()> {
        if let Some(mode) = mode {
            found(self.shared.store.set_account_mode(name, mode).await?)?;
        }
        if let Some(most) = max_in_flight {
            found(self.shared.store.set_max_in_flight(name, most).await?)?;
            self.shared.full.forget();
        }
        Ok(())
    }

    /// Adds to an account's balance, or takes from it.
    pub async fn credit(&self, account: &str, amount: NanoUsd, note: Option<&str>) -> Result<()> {
        match self.shared.store.credit(account, amount, note).await {
            Err(store::Error::OverLimit) => {
                Err(InvalidInput::one("amount", "is more than the account has left").into())
            }
            credited => found(credited?),
        }
    }
}

fn found(there: bool) -> Result<()> {
    if there { Ok(()) } else { Err(Error::NotFound) }
}
