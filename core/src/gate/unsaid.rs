//! What the links have not been told.

use super::{Gate, bit};
use crate::{count::Counts, route::RouteId};

impl Gate {
    /// The counts of the route in `slot`.
    pub fn counts(&self, slot: u32) -> Option<(RouteId, &Counts)> {
        let index = usize::try_from(slot).ok()?;
        self.routes.get(index)?.as_ref().map(|route| (route.id, &route.counts))
    }

    /// Whether the request is known here.
    pub fn knows(&self, stream: u32) -> bool {
        self.streams.get(stream).is_some()
    }

    /// How many requests wait.
    pub fn held(&self) -> u32 {
        self.held
    }

    /// How many requests are known, waiting or not.
    pub fn in_flight(&self) -> usize {
        self.streams.len()
    }

    /// The slots whose counts have changed since `link` last took them. Each is named once.
    pub fn take_unsaid(&mut self, link: usize) -> Vec<u32> {
        let slots = self.unsaid.get_mut(link).map(std::mem::take).unwrap_or_default();
        for slot in &slots {
            if let Some(links) = usize::try_from(*slot).ok().and_then(|slot| self.is_unsaid.get_mut(slot)) {
                *links &= !bit(link);
            }
        }
        slots
    }

    /// Whether `link` has not been told everything.
    pub fn has_unsaid(&self, link: usize) -> bool {
        self.unsaid.get(link).is_some_and(|slots| !slots.is_empty())
    }

    /// The slots of all routes.
    pub fn slots(&self) -> impl Iterator<Item = u32> + '_ {
        self.routes.iter().zip(0..).filter(|(route, _)| route.is_some()).map(|(_, slot)| slot)
    }

    /// Whether something happened that a scaler has to hear before the next tick; asking takes it back.
    pub fn take_urgent(&mut self) -> bool {
        std::mem::take(&mut self.urgent)
    }

    pub(super) fn touch(&mut self, slot: u32) {
        let links = usize::try_from(slot).ok().and_then(|slot| self.is_unsaid.get_mut(slot));
        let Some(links) = links else { return };
        for (link, slots) in self.unsaid.iter_mut().enumerate() {
            if *links & bit(link) == 0 {
                *links |= bit(link);
                slots.push(slot);
            }
        }
    }
}
