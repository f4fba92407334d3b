//! Gossipsub, tuned for 2 to 10 masters that should hear of a change at once.

use std::time::Duration;

use libp2p::gossipsub::{self, IdentTopic, MessageAuthenticity, MessageId, ValidationMode};
use libp2p::identity::Keypair;
use pleach_core::values::PROTOCOL_VERSION_OLDEST;
use pleach_core::vocabulary::StoreId;

use super::GOSSIP_BYTES_MAX;

/// The topic of a store. What is sent by gossip goes to whoever listens there, whichever versions it
/// speaks: messages that one version would misread are another topic's.
pub(super) fn topic(store: StoreId) -> IdentTopic {
    IdentTopic::new(format!("pleach/{store}/{PROTOCOL_VERSION_OLDEST}"))
}

/// Every connected master is sent to at once (flood publish), and up to seven pass a message on; each
/// message bears its author's signature, and its id is the hash of author and bytes, so that sending it
/// again is not another message.
pub(super) fn behaviour(key: &Keypair, store: StoreId) -> Result<gossipsub::Behaviour, String> {
    let config = gossipsub::ConfigBuilder::default()
        .validation_mode(ValidationMode::Strict)
        .max_transmit_size(GOSSIP_BYTES_MAX + (16 << 10))
        .flood_publish(true)
        .mesh_n(7)
        .mesh_n_low(4)
        .mesh_n_high(12)
        .mesh_outbound_min(2)
        .heartbeat_initial_delay(Duration::from_millis(500))
        .heartbeat_interval(Duration::from_secs(2))
        .history_length(4)
        .history_gossip(3)
        .duplicate_cache_time(Duration::from_secs(60))
        .connection_handler_queue_len(256)
        .publish_queue_duration(Duration::from_secs(10))
        .forward_queue_duration(Duration::from_secs(5))
        .message_id_fn(|message| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&message.source.map(|peer| peer.to_bytes()).unwrap_or_default());
            hasher.update(&message.data);
            MessageId::new(&hasher.finalize().as_bytes()[..20])
        })
        .build()
        .map_err(|error| error.to_string())?;
    let mut gossip = gossipsub::Behaviour::new(MessageAuthenticity::Signed(key.clone()), config)?;
    gossip.subscribe(&topic(store)).map_err(|error| error.to_string())?;
    Ok(gossip)
}
