//! Bytes that are charged to the budget as they arrive, and stay charged until the last slice of them is dropped.

use bytes::Bytes;

use crate::budget::{Charge, Exceeded};

/// Bytes as they arrive. What is charged is the buffer's capacity.
#[derive(Debug)]
pub struct ChargedBuffer {
    bytes: Vec<u8>,
    charge: Charge,
    announced: Option<usize>,
}

impl ChargedBuffer {
    /// An empty buffer. `announced` is the length that the sender promised.
    pub fn new(charge: Charge, announced: Option<usize>) -> Self {
        Self { bytes: Vec::new(), charge, announced }
    }

    /// Number of bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds bytes. Room is taken as they arrive, not as they are announced: announcing costs a client nothing. So the
    /// buffer grows to twice its length, or where the length was announced to four times, but no further than that.
    ///
    /// # Errors
    /// If there is no room for them.
    pub fn add(&mut self, data: &[u8]) -> Result<(), Exceeded> {
        const LEAST: usize = 16 << 10;
        let needed = self.bytes.len() + data.len();
        let before = self.bytes.capacity();
        if needed > before {
            let capacity = match self.announced {
                Some(length) => needed.saturating_mul(4).max(LEAST).min(length),
                None => needed.saturating_mul(2).max(LEAST),
            };
            let capacity = capacity.max(needed);
            // For a moment there are both buffers.
            self.charge.grow(capacity)?;
            let mut larger = Vec::with_capacity(capacity);
            larger.extend_from_slice(&self.bytes);
            self.bytes = larger;
            self.charge.shrink(before);
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }

    /// The bytes. The charge ends when the last slice of them is dropped.
    pub fn into_bytes(self) -> Bytes {
        charged(self.bytes, self.charge)
    }
}

/// Bytes that hold a charge: it ends when the last slice of them is dropped.
pub fn charged(bytes: Vec<u8>, charge: Charge) -> Bytes {
    struct Charged {
        bytes: Vec<u8>,
        _charge: Charge,
    }

    impl AsRef<[u8]> for Charged {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }

    Bytes::from_owner(Charged { bytes, _charge: charge })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::{MemoryBudget, MemoryKind};

    #[test]
    fn the_charge_lives_as_long_as_the_last_slice() {
        let budget = MemoryBudget::new(1000);
        let mut buffer = ChargedBuffer::new(budget.charge(1, MemoryKind::Body, 0).unwrap(), Some(100));
        buffer.add(&[7; 100]).unwrap();
        let bytes = buffer.into_bytes();
        let slice = bytes.slice(10..20);
        drop(bytes);
        assert_eq!((slice.len(), budget.total()), (10, 100));
        drop(slice);
        assert_eq!(budget.total(), 0);
    }
}
