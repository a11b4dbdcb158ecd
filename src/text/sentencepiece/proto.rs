//! The parts of SentencePiece's `ModelProto` that change ids, read from protobuf wire format.
//!
//! Source: `sentencepiece_model.proto` of google/sentencepiece. Unknown fields are skipped, every
//! length is checked against what is left.

/// `ModelProto.SentencePiece.Type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PieceType {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

/// `ModelProto.SentencePiece`.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub text: String,
    pub score: f32,
    pub kind: PieceType,
}

/// `TrainerSpec.ModelType`, of which two are used by SigLIP's tokenizers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ModelType {
    Unigram,
    Bpe,
}

/// What is read of a `ModelProto`.
#[derive(Debug)]
pub(super) struct ModelProto {
    pub pieces: Vec<Piece>,
    pub model_type: ModelType,
    pub byte_fallback: bool,
    pub whitespace_as_suffix: bool,
    pub charsmap: Vec<u8>,
    pub add_dummy_prefix: bool,
    pub remove_extra_whitespaces: bool,
    pub escape_whitespaces: bool,
}

/// A field's value on the wire.
enum Value<'a> {
    Varint(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
    Fixed64,
}

/// One message, read field by field.
struct Message<'a> {
    rest: &'a [u8],
    name: &'static str,
}

type Result<T> = std::result::Result<T, String>;

impl<'a> Message<'a> {
    fn new(bytes: &'a [u8], name: &'static str) -> Self {
        Self { rest: bytes, name }
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.rest.split_first().ok_or_else(|| self.cut())?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(format!("a number in its {} message is longer than 64 bits", self.name))
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8]> {
        let count =
            usize::try_from(count).ok().filter(|n| *n <= self.rest.len()).ok_or_else(|| self.cut())?;
        let (head, rest) = self.rest.split_at(count);
        self.rest = rest;
        Ok(head)
    }

    fn cut(&self) -> String {
        format!("its {} message ends early: the file is truncated or not a SentencePiece model", self.name)
    }

    /// The next field's number and value, or `None` at the end.
    fn next(&mut self) -> Result<Option<(u64, Value<'a>)>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Value::Fixed64
            }
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => {
                let bytes = self.take(4)?;
                Value::Fixed32(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            }
            other => {
                return Err(format!("its {} message has a field of unknown wire type {other}", self.name));
            }
        };
        Ok(Some((key >> 3, value)))
    }
}

impl ModelProto {
    /// Reads a `spiece.model` or `tokenizer.model`; the error says what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut model = Self {
            pieces: Vec::new(),
            model_type: ModelType::Unigram,
            byte_fallback: false,
            whitespace_as_suffix: false,
            charsmap: Vec::new(),
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
            escape_whitespaces: true,
        };
        let mut message = Message::new(bytes, "model");
        while let Some(field) = message.next()? {
            match field {
                (1, Value::Bytes(piece)) => {
                    let index = model.pieces.len();
                    model.pieces.push(parse_piece(piece).map_err(|e| format!("piece {index}: {e}"))?);
                }
                (2, Value::Bytes(spec)) => model.parse_trainer(spec)?,
                (3, Value::Bytes(spec)) => model.parse_normalizer(spec)?,
                (1..=3, _) => return Err("it is not a SentencePiece model".into()),
                _ => {}
            }
        }
        Ok(model)
    }

    fn parse_trainer(&mut self, bytes: &[u8]) -> Result<()> {
        let mut message = Message::new(bytes, "trainer");
        while let Some(field) = message.next()? {
            match field {
                (3, Value::Varint(kind)) => {
                    self.model_type = match kind {
                        1 => ModelType::Unigram,
                        2 => ModelType::Bpe,
                        3 => return Err("its model type is WORD; only UNIGRAM and BPE are supported".into()),
                        4 => return Err("its model type is CHAR; only UNIGRAM and BPE are supported".into()),
                        other => return Err(format!("its model type {other} is unknown")),
                    }
                }
                (24, Value::Varint(flag)) => self.whitespace_as_suffix = flag != 0,
                (35, Value::Varint(flag)) => self.byte_fallback = flag != 0,
                _ => {}
            }
        }
        Ok(())
    }

    fn parse_normalizer(&mut self, bytes: &[u8]) -> Result<()> {
        let mut message = Message::new(bytes, "normalizer");
        while let Some(field) = message.next()? {
            match field {
                (2, Value::Bytes(map)) => self.charsmap = map.to_vec(),
                (3, Value::Varint(flag)) => self.add_dummy_prefix = flag != 0,
                (4, Value::Varint(flag)) => self.remove_extra_whitespaces = flag != 0,
                (5, Value::Varint(flag)) => self.escape_whitespaces = flag != 0,
                _ => {}
            }
        }
        Ok(())
    }
}

fn parse_piece(bytes: &[u8]) -> Result<Piece> {
    let mut piece = Piece { text: String::new(), score: 0.0, kind: PieceType::Normal };
    let mut message = Message::new(bytes, "piece");
    while let Some(field) = message.next()? {
        match field {
            (1, Value::Bytes(text)) => {
                piece.text = String::from_utf8(text.to_vec()).map_err(|_| "its text is not UTF-8")?;
            }
            // Adding zero turns -0.0 into 0.0, so that equal scores are equal in a total order too.
            (2, Value::Fixed32(bits)) => piece.score = f32::from_bits(bits) + 0.0,
            (3, Value::Varint(kind)) => {
                piece.kind = match kind {
                    1 => PieceType::Normal,
                    2 => PieceType::Unknown,
                    3 => PieceType::Control,
                    4 => PieceType::UserDefined,
                    5 => PieceType::Unused,
                    6 => PieceType::Byte,
                    other => return Err(format!("its type {other} is unknown")),
                }
            }
            (1..=3, _) => return Err("a field of it has the wrong wire type".into()),
            _ => {}
        }
    }
    if !piece.score.is_finite() {
        return Err("its score is not a finite number".into());
    }
    Ok(piece)
}
