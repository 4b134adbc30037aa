//! A wall clock that is set while the announcer runs, as on a board without a battery-backed clock once the network
//! provides the time.
//!
//! New dates follow the new time at once. Clips still on their way are dated and signed again, with the same time left
//! to live. A station judges by the time that was stated to it when it connected: idle stations are asked to connect
//! again, and all others do so by themselves after their clip.

use tokio::time::Instant;

use super::super::recording::Recorded;
use super::Desk;
use crate::stations::Delivery;
use crate::wall::LEAST_STEP;
use crate::wire::ClipHeader;

impl Desk {
    /// Adopts the time of a wall clock that was set; not during live speech, whose header must carry the same date at
    /// its end as at its start.
    pub(super) fn follow_wall(&mut self) {
        if self.speaking.is_some() || self.stations.has_live() || self.wall.follow().is_none() {
            return;
        }
        let Some(site) = self.config.site.clone() else { return };
        let (wall, outbox, unstored) = (&self.wall, &self.outbox, &self.unstored);
        let redate = |delivery: &Delivery, expires: Instant| {
            let mut header = ClipHeader::decode(&delivery.header).ok()?;
            header.dated_to_expire(wall.unix_ms(expires));
            let encoded = header.encode();
            let signature = site.sign(&encoded);
            if let Some(outbox) = outbox.as_ref().filter(|_| !unstored.contains(&header.id)) {
                outbox.redate(&header.id.to_string(), &encoded, &signature);
            }
            Some((encoded, signature))
        };
        self.stations.renew(redate, Instant::now());
    }

    /// Dates and signs a recording again if it was dated just before the wall clock was set.
    pub(super) fn dated_anew(&self, mut recorded: Recorded) -> Recorded {
        let expires_unix_ms = self.wall.unix_ms(recorded.expires);
        // A difference of less than a step is rounding.
        if recorded.header.expires_unix_ms.abs_diff(expires_unix_ms) < LEAST_STEP.as_millis() as u64 / 2 {
            return recorded;
        }
        let header = &mut recorded.header;
        header.dated_to_expire(expires_unix_ms);
        let encoded = header.encode();
        let signature = self.config.site.as_ref().map(|site| site.sign(&encoded)).unwrap_or_default();
        if let (Some(outbox), Some(Ok(()))) = (&self.outbox, &recorded.stored) {
            outbox.redate(&header.id.to_string(), &encoded, &signature);
        }
        (recorded.delivery.header, recorded.delivery.signature) = (encoded, signature);
        recorded
    }
}
