//! The library's storage: its own SQLite store, behind three rules of ours.
//!
//! 1. **The row before the ratchet**: what decrypts is written only after all that it has decrypted
//!    ([`Arrivals`]).
//! 2. **No ack of what nobody has read**: a message of which neither a row nor its mark is left was passed
//!    by keys from elsewhere, such as an old backup's. Intake notes it before WhatsApp is told that we have
//!    it, and asks the phone.
//! 3. **No step past a failure**: after the first one the library can neither write nor speak
//!    ([`StorageFault`]).
//!
//! ```text
//! library ─▶ Storage ─┬─ sessions, members' keys ─▶ wait for the rows that they moved past ─┐
//!                     ├─ a message's row ─────────▶ write, then release it ─────────────────┤
//!                     └─ all else ──────────────────────────────────────────────────────────┤
//!                                                                  run_checked ─▶ SqliteStore
//!                                                                                 │ failed
//!                                                                                 ▼
//!                                                      StorageFault: refused from here on
//! ```
//! The library has 82 methods of storage, and Rust has no way to pass the others on but by name: hence the
//! length of this file. Each has to be there, even if the trait has a default: the SQLite store has its own.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use whatsapp_rust::async_trait;
use whatsapp_rust::prelude::SqliteStore;
use whatsapp_rust::wacore::appstate::hash::HashState;
use whatsapp_rust::wacore::appstate::processor::AppStateMutationMAC;
use whatsapp_rust::wacore::reporting_token::MESSAGE_SECRET_SIZE;
use whatsapp_rust::wacore::stats::StorageResourceReport;
use whatsapp_rust::wacore::store::Device;
use whatsapp_rust::wacore::store::error::{Result, StoreError};
use whatsapp_rust::wacore::store::traits::{
    AppStateSyncKey, AppSyncStore, DeviceListRecord, DeviceStore, LidPnMappingEntry, MsgSecretEntry,
    MsgSecretStore, PendingInboundKey, PendingInboundRow, ProtocolStore, SignalStore, TcTokenEntry,
};

use super::arrivals::{Arrival, Arrivals, RowsNotStored};
use super::fault::StorageFault;
use super::intake_sink::IntakeSink;

/// How much longer than the library rows and marks are kept: for 30 days in all, as WhatsApp delivers what
/// was not acknowledged.
const KEPT_LONGER_SECS: i64 = 23 * 24 * 60 * 60;
/// The row of a message that intake has taken: what comes again is known by it.
const MARK: &[u8] = &[];

/// The storage of one run of the library.
pub struct Storage {
    pub database: SqliteStore,
    pub arrivals: Arrivals,
    pub fault: StorageFault,
    pub intake: IntakeSink,
}

impl Storage {
    /// Carries an operation out; after the first failure, none.
    async fn run_checked<Answer>(&self, operation: impl Future<Output = Result<Answer>>) -> Result<Answer> {
        self.ensure_no_fault()?;
        let result = operation.await;
        if let Err(error) = &result
            && is_storage_fault(error)
        {
            self.fault.record_fault(&error_with_sources(error));
        }
        result
    }

    fn ensure_no_fault(&self) -> Result<()> {
        if self.fault.has_happened() {
            return Err(StoreError::Io(std::io::Error::other("the link's database has failed")));
        }
        Ok(())
    }

    async fn wait_for_session_rows(&self, sessions: impl Iterator<Item = &[u8]>) -> Result<()> {
        self.ensure_no_fault()?;
        map_rows_not_stored(self.arrivals.wait_for_session_rows(sessions, || self.database.exists()).await)
    }

    async fn wait_for_sender_key_rows(&self, records: impl Iterator<Item = &[u8]>) -> Result<()> {
        self.ensure_no_fault()?;
        map_rows_not_stored(self.arrivals.wait_for_sender_key_rows(records, || self.database.exists()).await)
    }
}

/// In the library's words: it keeps the keys in memory and writes them a little later.
fn map_rows_not_stored(waited: std::result::Result<(), RowsNotStored>) -> Result<()> {
    waited.map_err(|RowsNotStored| StoreError::Validation("a message is not on disk yet".to_owned()))
}

/// Whether the database could not do what any sound one can; else the question was wrong, or one row is.
fn is_storage_fault(error: &StoreError) -> bool {
    let about_the_question = matches!(
        error,
        StoreError::Serialization(_)
            | StoreError::Validation(_)
            | StoreError::InvalidConfig(_)
            | StoreError::DeviceNotFound(_)
    );
    !about_the_question && !error_with_sources(error).contains("constraint failed")
}

fn error_with_sources(error: &StoreError) -> String {
    let mut words = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        words = format!("{words}: {cause}");
        source = cause.source();
    }
    words
}

#[async_trait]
impl SignalStore for Storage {
    async fn put_identity(&self, address: &str, key: [u8; 32]) -> Result<()> {
        self.run_checked(self.database.put_identity(address, key)).await
    }

    async fn put_identities_batch(&self, identities: &[(Arc<str>, [u8; 32])]) -> Result<()> {
        self.run_checked(self.database.put_identities_batch(identities)).await
    }

    async fn load_identity(&self, address: &str) -> Result<Option<[u8; 32]>> {
        self.run_checked(self.database.load_identity(address)).await
    }

    async fn delete_identity(&self, address: &str) -> Result<()> {
        self.run_checked(self.database.delete_identity(address)).await
    }

    async fn get_session(&self, address: &str) -> Result<Option<Bytes>> {
        self.run_checked(self.database.get_session(address)).await
    }

    async fn put_session(&self, address: &str, session: &[u8]) -> Result<()> {
        self.wait_for_session_rows(std::iter::once(session)).await?;
        self.run_checked(self.database.put_session(address, session)).await
    }

    async fn put_sessions_batch(&self, sessions: &[(Arc<str>, Bytes)]) -> Result<()> {
        self.wait_for_session_rows(sessions.iter().map(|(_, session)| &session[..])).await?;
        self.run_checked(self.database.put_sessions_batch(sessions)).await
    }

    async fn delete_session(&self, address: &str) -> Result<()> {
        self.run_checked(self.database.delete_session(address)).await
    }

    async fn has_session(&self, address: &str) -> Result<bool> {
        self.run_checked(self.database.has_session(address)).await
    }

    async fn has_signal_state_for_user(&self, user: &str) -> Result<bool> {
        self.run_checked(self.database.has_signal_state_for_user(user)).await
    }

    async fn store_prekey(&self, id: u32, record: &[u8], uploaded: bool) -> Result<()> {
        self.run_checked(self.database.store_prekey(id, record, uploaded)).await
    }

    async fn store_prekeys_batch(&self, keys: &[(u32, Bytes)], uploaded: bool) -> Result<()> {
        self.run_checked(self.database.store_prekeys_batch(keys, uploaded)).await
    }

    async fn load_prekey(&self, id: u32) -> Result<Option<Bytes>> {
        self.run_checked(self.database.load_prekey(id)).await
    }

    async fn load_prekeys_batch(&self, ids: &[u32]) -> Result<Vec<(u32, Bytes)>> {
        self.run_checked(self.database.load_prekeys_batch(ids)).await
    }

    async fn mark_prekeys_uploaded(&self, ids: &[u32]) -> Result<()> {
        self.run_checked(self.database.mark_prekeys_uploaded(ids)).await
    }

    async fn remove_prekey(&self, id: u32) -> Result<()> {
        self.run_checked(self.database.remove_prekey(id)).await
    }

    async fn get_max_prekey_id(&self) -> Result<u32> {
        self.run_checked(self.database.get_max_prekey_id()).await
    }

    async fn store_signed_prekey(&self, id: u32, record: &[u8]) -> Result<()> {
        self.run_checked(self.database.store_signed_prekey(id, record)).await
    }

    async fn load_signed_prekey(&self, id: u32) -> Result<Option<Vec<u8>>> {
        self.run_checked(self.database.load_signed_prekey(id)).await
    }

    async fn load_all_signed_prekeys(&self) -> Result<Vec<(u32, Vec<u8>)>> {
        self.run_checked(self.database.load_all_signed_prekeys()).await
    }

    async fn remove_signed_prekey(&self, id: u32) -> Result<()> {
        self.run_checked(self.database.remove_signed_prekey(id)).await
    }

    async fn put_sender_key(&self, address: &str, record: &[u8]) -> Result<()> {
        self.wait_for_sender_key_rows(std::iter::once(record)).await?;
        self.run_checked(self.database.put_sender_key(address, record)).await
    }

    async fn put_sender_keys_batch(&self, sender_keys: &[(Arc<str>, Bytes)]) -> Result<()> {
        self.wait_for_sender_key_rows(sender_keys.iter().map(|(_, record)| &record[..])).await?;
        self.run_checked(self.database.put_sender_keys_batch(sender_keys)).await
    }

    async fn get_sender_key(&self, address: &str) -> Result<Option<Vec<u8>>> {
        self.run_checked(self.database.get_sender_key(address)).await
    }

    async fn delete_sender_key(&self, address: &str) -> Result<()> {
        self.run_checked(self.database.delete_sender_key(address)).await
    }
}

#[async_trait]
impl AppSyncStore for Storage {
    async fn get_sync_key(&self, key_id: &[u8]) -> Result<Option<AppStateSyncKey>> {
        self.run_checked(self.database.get_sync_key(key_id)).await
    }

    async fn set_sync_key(&self, key_id: &[u8], key: AppStateSyncKey) -> Result<()> {
        self.run_checked(self.database.set_sync_key(key_id, key)).await
    }

    async fn get_version(&self, name: &str) -> Result<HashState> {
        self.run_checked(self.database.get_version(name)).await
    }

    async fn set_version(&self, name: &str, state: HashState) -> Result<()> {
        self.run_checked(self.database.set_version(name, state)).await
    }

    async fn put_mutation_macs(
        &self,
        name: &str,
        version: u64,
        mutations: &[AppStateMutationMAC],
    ) -> Result<()> {
        self.run_checked(self.database.put_mutation_macs(name, version, mutations)).await
    }

    async fn get_mutation_mac(&self, name: &str, index_mac: &[u8]) -> Result<Option<Vec<u8>>> {
        self.run_checked(self.database.get_mutation_mac(name, index_mac)).await
    }

    async fn get_mutation_macs(
        &self,
        name: &str,
        index_macs: &[[u8; 32]],
    ) -> Result<HashMap<[u8; 32], Vec<u8>>> {
        self.run_checked(self.database.get_mutation_macs(name, index_macs)).await
    }

    async fn delete_mutation_macs(&self, name: &str, index_macs: &[Vec<u8>]) -> Result<()> {
        self.run_checked(self.database.delete_mutation_macs(name, index_macs)).await
    }

    async fn clear_mutation_macs(&self, name: &str) -> Result<()> {
        self.run_checked(self.database.clear_mutation_macs(name)).await
    }

    async fn get_latest_sync_key_id(&self) -> Result<Option<Vec<u8>>> {
        self.run_checked(self.database.get_latest_sync_key_id()).await
    }
}

#[async_trait]
impl ProtocolStore for Storage {
    async fn get_sender_key_devices(&self, group_jid: &str) -> Result<Vec<(String, bool)>> {
        self.run_checked(self.database.get_sender_key_devices(group_jid)).await
    }

    async fn set_sender_key_status(&self, group_jid: &str, entries: &[(&str, bool)]) -> Result<()> {
        self.run_checked(self.database.set_sender_key_status(group_jid, entries)).await
    }

    async fn clear_sender_key_devices(&self, group_jid: &str) -> Result<()> {
        self.run_checked(self.database.clear_sender_key_devices(group_jid)).await
    }

    async fn delete_sender_key_device_rows(&self, device_jids: &[&str]) -> Result<()> {
        self.run_checked(self.database.delete_sender_key_device_rows(device_jids)).await
    }

    async fn clear_all_sender_key_devices(&self) -> Result<()> {
        self.run_checked(self.database.clear_all_sender_key_devices()).await
    }

    async fn get_lid_mapping(&self, lid: &str) -> Result<Option<LidPnMappingEntry>> {
        self.run_checked(self.database.get_lid_mapping(lid)).await
    }

    async fn get_pn_mapping(&self, phone: &str) -> Result<Option<LidPnMappingEntry>> {
        self.run_checked(self.database.get_pn_mapping(phone)).await
    }

    async fn put_lid_mapping(&self, entry: &LidPnMappingEntry) -> Result<()> {
        self.run_checked(self.database.put_lid_mapping(entry)).await
    }

    async fn put_lid_mappings(&self, entries: &[LidPnMappingEntry]) -> Result<()> {
        self.run_checked(self.database.put_lid_mappings(entries)).await
    }

    async fn get_all_lid_mappings(&self) -> Result<Vec<LidPnMappingEntry>> {
        self.run_checked(self.database.get_all_lid_mappings()).await
    }

    async fn save_base_key(&self, address: &str, message_id: &str, base_key: &[u8]) -> Result<()> {
        self.run_checked(self.database.save_base_key(address, message_id, base_key)).await
    }

    async fn has_same_base_key(
        &self,
        address: &str,
        message_id: &str,
        current_base_key: &[u8],
    ) -> Result<bool> {
        self.run_checked(self.database.has_same_base_key(address, message_id, current_base_key)).await
    }

    async fn delete_base_key(&self, address: &str, message_id: &str) -> Result<()> {
        self.run_checked(self.database.delete_base_key(address, message_id)).await
    }

    async fn update_device_list(&self, record: DeviceListRecord) -> Result<()> {
        self.run_checked(self.database.update_device_list(record)).await
    }

    async fn update_device_lists(&self, records: Vec<DeviceListRecord>) -> Result<()> {
        self.run_checked(self.database.update_device_lists(records)).await
    }

    async fn get_devices(&self, user: &str) -> Result<Option<DeviceListRecord>> {
        self.run_checked(self.database.get_devices(user)).await
    }

    async fn delete_devices(&self, user: &str) -> Result<()> {
        self.run_checked(self.database.delete_devices(user)).await
    }

    async fn get_group_metadata(&self, group_jid: &str) -> Result<Option<Vec<u8>>> {
        self.run_checked(self.database.get_group_metadata(group_jid)).await
    }

    async fn put_group_metadata(&self, group_jid: &str, blob: &[u8]) -> Result<()> {
        self.run_checked(self.database.put_group_metadata(group_jid, blob)).await
    }

    async fn delete_group_metadata(&self, group_jid: &str) -> Result<()> {
        self.run_checked(self.database.delete_group_metadata(group_jid)).await
    }

    async fn get_tc_token(&self, jid: &str) -> Result<Option<TcTokenEntry>> {
        self.run_checked(self.database.get_tc_token(jid)).await
    }

    async fn put_tc_token(&self, jid: &str, entry: &TcTokenEntry) -> Result<()> {
        self.run_checked(self.database.put_tc_token(jid, entry)).await
    }

    async fn delete_tc_token(&self, jid: &str) -> Result<()> {
        self.run_checked(self.database.delete_tc_token(jid)).await
    }

    async fn get_all_tc_token_jids(&self) -> Result<Vec<String>> {
        self.run_checked(self.database.get_all_tc_token_jids()).await
    }

    async fn delete_expired_tc_tokens(&self, token_cutoff: i64, sender_cutoff: i64) -> Result<u32> {
        self.run_checked(self.database.delete_expired_tc_tokens(token_cutoff, sender_cutoff)).await
    }

    async fn touch_tc_token_sender_timestamp(&self, jid: &str, sender_timestamp: i64) -> Result<()> {
        self.run_checked(self.database.touch_tc_token_sender_timestamp(jid, sender_timestamp)).await
    }

    async fn store_received_tc_token(&self, jid: &str, token: &[u8], token_timestamp: i64) -> Result<()> {
        self.run_checked(self.database.store_received_tc_token(jid, token, token_timestamp)).await
    }

    async fn store_sent_message(&self, chat_jid: &str, message_id: &str, payload: &[u8]) -> Result<()> {
        self.run_checked(self.database.store_sent_message(chat_jid, message_id, payload)).await
    }

    async fn take_sent_message(&self, chat_jid: &str, message_id: &str) -> Result<Option<Vec<u8>>> {
        self.run_checked(self.database.take_sent_message(chat_jid, message_id)).await
    }

    async fn delete_expired_sent_messages(&self, cutoff_timestamp: i64) -> Result<u32> {
        self.run_checked(self.database.delete_expired_sent_messages(cutoff_timestamp)).await
    }

    async fn store_pending_inbound(&self, chat: &str, sender: &str, id: &str, message: &[u8]) -> Result<()> {
        self.store_pending_inbound_batch(&[PendingInboundRow { chat, sender, id, message }]).await
    }

    async fn get_pending_inbound(&self, chat: &str, sender: &str, id: &str) -> Result<Option<Vec<u8>>> {
        let arrival = Arrival::new(chat, sender, id);
        let row = self.run_checked(self.database.get_pending_inbound(chat, sender, id)).await?;
        if row.is_none()
            && let Some(unread) = self.arrivals.unread_event_of(&arrival)
        {
            let noted = self.intake.submit_events(vec![unread]).await;
            noted.map_err(|error| StoreError::Validation(error.to_string()))?;
        }
        // The library asks for a message that has come before: its chain has moved past it long ago.
        self.arrivals.release_arrival(&arrival);
        Ok(row.filter(|row| row != MARK))
    }

    async fn delete_pending_inbound(&self, chat: &str, sender: &str, id: &str) -> Result<()> {
        self.run_checked(self.database.delete_pending_inbound(chat, sender, id)).await
    }

    async fn delete_expired_pending_inbound(&self, cutoff_timestamp: i64) -> Result<u32> {
        self.run_checked(self.database.delete_expired_pending_inbound(cutoff_timestamp - KEPT_LONGER_SECS))
            .await
    }

    async fn store_pending_inbound_batch(&self, rows: &[PendingInboundRow<'_>]) -> Result<()> {
        self.run_checked(self.database.store_pending_inbound_batch(rows)).await?;
        for row in rows {
            self.arrivals.release_arrival(&Arrival::new(row.chat, row.sender, row.id));
        }
        Ok(())
    }

    /// Leaves a mark in the place of each.
    async fn delete_pending_inbound_batch(&self, keys: &[PendingInboundKey<'_>]) -> Result<()> {
        let marks = keys.iter().map(|&PendingInboundKey { chat, sender, id }| PendingInboundRow {
            chat,
            sender,
            id,
            message: MARK,
        });
        self.run_checked(self.database.store_pending_inbound_batch(&marks.collect::<Vec<_>>())).await
    }
}

#[async_trait]
impl MsgSecretStore for Storage {
    async fn put_msg_secret(
        &self,
        chat: &str,
        sender: &str,
        msg_id: &str,
        secret: &[u8; MESSAGE_SECRET_SIZE],
    ) -> Result<()> {
        self.run_checked(self.database.put_msg_secret(chat, sender, msg_id, secret)).await
    }

    async fn put_msg_secrets(&self, entries: Vec<MsgSecretEntry>) -> Result<usize> {
        self.run_checked(self.database.put_msg_secrets(entries)).await
    }

    async fn get_msg_secret(&self, chat: &str, sender: &str, msg_id: &str) -> Result<Option<Vec<u8>>> {
        self.run_checked(self.database.get_msg_secret(chat, sender, msg_id)).await
    }

    async fn get_msg_secret_with_ts(
        &self,
        chat: &str,
        sender: &str,
        msg_id: &str,
    ) -> Result<Option<(Vec<u8>, i64)>> {
        self.run_checked(self.database.get_msg_secret_with_ts(chat, sender, msg_id)).await
    }

    async fn delete_expired_msg_secrets(&self, cutoff_timestamp: i64) -> Result<u32> {
        self.run_checked(self.database.delete_expired_msg_secrets(cutoff_timestamp)).await
    }
}

#[async_trait]
impl DeviceStore for Storage {
    async fn save(&self, device: &Device) -> Result<()> {
        self.run_checked(self.database.save(device)).await
    }

    async fn load(&self) -> Result<Option<Device>> {
        self.run_checked(self.database.load()).await
    }

    async fn exists(&self) -> Result<bool> {
        self.run_checked(self.database.exists()).await
    }

    async fn create(&self) -> Result<i32> {
        self.run_checked(self.database.create()).await
    }

    async fn snapshot_db(&self, name: &str, extra_content: Option<&[u8]>) -> Result<()> {
        self.run_checked(self.database.snapshot_db(name, extra_content)).await
    }

    async fn resource_report(&self) -> StorageResourceReport {
        self.database.resource_report().await
    }
}
