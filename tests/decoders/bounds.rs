//! What decoders promise at their bounds: memory, lengths, what comes after an error.
use super::memory;
use clusterd::keeper::codec::{self, RecordError};
use clusterd::keeper::state;
use clusterd::keeper::state::KEEPER_STATE_BYTES_MAX;
use clusterd::limits::{
    CHANNEL_LINE_BYTES_MAX, KEEPER_PACKET_BYTES_MAX, LISTENER_DATA_BYTES_MAX, LISTENER_KEY_BYTES_MAX, NOTE_BYTES_MAX,
    NOTIFY_BYTES_MAX, SPAWN_SPEC_BYTES_MAX,
};
use clusterd::record;
use clusterd::worker::node::framing::{CHANNEL_READ_BYTES, LineBuffer, Oversize};
use clusterd::worker::node::lines::{self, FromWorker};
use clusterd::worker::notify;

/// Feeds a line of so many bytes, read by read, its end in the same read as its last bytes, and looks for it after
/// each read: its length, or the first error.
fn line_of(buffer: &mut LineBuffer, bytes: usize, read: usize) -> Result<usize, Oversize> {
    let mut left = bytes + 1;
    while left > 0 {
        let now = left.min(read);
        let spare = buffer.spare(read);
        spare[..now].fill(b'x');
        left -= now;
        if left == 0 {
            spare[now - 1] = b'\n';
        }
        buffer.filled(now);
        if let Some(line) = buffer.next_line()? {
            return Ok(line.bytes.len());
        }
    }
    panic!("neither a line nor an error");
}

#[test]
fn the_bound_of_a_line_does_not_depend_on_how_it_is_cut() {
    for read in [CHANNEL_READ_BYTES, 1024 * 1024 + 3] {
        let mut buffer = LineBuffer::new();
        assert_eq!(line_of(&mut buffer, CHANNEL_LINE_BYTES_MAX, read), Ok(CHANNEL_LINE_BYTES_MAX), "reads of {read}");
        let error = line_of(&mut buffer, CHANNEL_LINE_BYTES_MAX + 1, read).unwrap_err();
        assert!(error.to_string().contains("beginning with \"xxx"), "{error}");
    }
}

#[test]
fn after_a_line_that_is_too_long_nothing_more_is_made_of_the_stream() {
    let mut buffer = LineBuffer::new();
    let error = line_of(&mut buffer, CHANNEL_LINE_BYTES_MAX + 5_000_000, 1024 * 1024).unwrap_err();
    assert_eq!(buffer.next_line(), Err(error.clone()), "it says so again");
    let more = b"the rest of it\n{\"cmd\":\"NODE_HANDLE_ACK\"}\n";
    buffer.spare(more.len())[..more.len()].copy_from_slice(more);
    buffer.filled(more.len());
    assert_eq!(buffer.next_line(), Err(error), "its tail is not a line");
}

#[test]
fn a_channel_holds_one_line_and_one_read() {
    let (result, peak) = memory::peak(|| {
        let mut buffer = LineBuffer::new();
        let longest = line_of(&mut buffer, CHANNEL_LINE_BYTES_MAX, CHANNEL_READ_BYTES);
        (longest, line_of(&mut buffer, CHANNEL_LINE_BYTES_MAX + 1, CHANNEL_READ_BYTES).is_err())
    });
    assert_eq!(result, (Ok(CHANNEL_LINE_BYTES_MAX), true));
    assert!(peak <= CHANNEL_LINE_BYTES_MAX + 2 * CHANNEL_READ_BYTES, "{peak} bytes held");
}

#[test]
fn a_users_message_of_megabytes_costs_no_copy() {
    let text = "\u{2028}ab\\n".repeat(1024 * 1024 / 4);
    for line in [
        format!("{{\"type\":\"log\",\"text\":\"{text}\"}}"),
        format!("\"{text}\""),
        format!("[{}1]", "1,".repeat(500_000)),
        format!("{{\"cmd\":{{\"x\":\"{text}\"}}}}"),
    ] {
        let (decoded, peak) = memory::peak(|| lines::decode(line.as_bytes()));
        assert_eq!(decoded, Ok(FromWorker::User));
        assert!(peak < 64 * 1024, "{peak} bytes held for {}", line.len());
    }
}

#[test]
fn any_message_that_node_can_send_is_a_users_message() {
    // A key of half a surrogate pair is a string of JavaScript like any other, and nesting has no bound there.
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    for line in [
        r#"{"\ud800":1}"#.to_owned(),
        r#"{"a":{"\udfff":"\ud800"},"b":"\ud83d"}"#.to_owned(),
        r#""\ud800""#.to_owned(),
        r#"{"cmd":"\ud800","act":1}"#.to_owned(),
        deep.clone(),
        format!("{{\"a\":{deep}}}"),
        format!("{{\"cmd\":{deep}}}"),
        r#"{"a":1e400,"b":123456789012345678901234567890}"#.to_owned(),
    ] {
        let shown = &line[..line.len().min(60)];
        assert_eq!(lines::decode(line.as_bytes()), Ok(FromWorker::User), "{shown}");
    }
}

#[test]
fn every_line_of_node_is_understood() {
    for line in super::corpus::node_lines() {
        let decoded = lines::decode(&line);
        assert!(decoded.is_ok(), "{decoded:?}");
        let asks = line.windows(11).any(|window| window == b"queryServer");
        assert_eq!(matches!(decoded, Ok(FromWorker::QueryServer { .. })), asks, "{decoded:?}");
    }
}

#[test]
fn what_is_said_of_a_bad_line_is_short_and_fit_for_a_terminal() {
    let long = "\u{9b}31m\u{7f}x".repeat(200_000);
    for fields in [
        format!("\"act\":\"online\",\"seq\":\"{long}\""),
        format!("\"act\":\"queryServer\",\"addressType\":\"{long}\""),
        format!("\"act\":\"queryServer\",\"addressType\":[1,\"{long}\"]"),
        format!("\"act\":\"queryServer\",\"address\":\"{long}\""),
        format!("\"act\":\"queryServer\",\"flags\":\"{long}\""),
    ] {
        let line = format!("{{\"cmd\":\"NODE_CLUSTER\",{fields}}}");
        let message = lines::decode(line.as_bytes()).unwrap_err().to_string();
        assert!(message.len() < 1_000, "{} bytes: {}", message.len(), &message[..200]);
        assert!(!message.chars().any(char::is_control), "{message:?}");
        assert!(message.contains("NODE_CLUSTER"), "{message}");
    }
}

#[test]
fn a_request_holds_no_more_than_its_bounds() {
    let line = |address: usize, data: usize| {
        let (address, data) = ("a".repeat(address), "d".repeat(data - 2));
        let fields = format!("\"address\":\"{address}\",\"data\":\"{data}\"");
        format!("{{\"cmd\":\"NODE_CLUSTER\",\"act\":\"queryServer\",{fields},\"seq\":1}}")
    };
    let decode = |address, data| lines::decode(line(address, data).as_bytes());
    assert!(decode(LISTENER_KEY_BYTES_MAX, LISTENER_DATA_BYTES_MAX).is_ok());
    assert!(decode(LISTENER_KEY_BYTES_MAX + 1, 2).is_err());
    assert!(decode(1, LISTENER_DATA_BYTES_MAX + 1).is_err());
}

#[test]
fn lengths_that_lie_allocate_nothing() {
    // Four billion, so much as a bound allows, and more than a length may be.
    for length in [&[0xff, 0xff, 0xff, 0xff, 0x0f][..], &[0xff, 0xff, 0xff, 0x01], &[0xff; 9]] {
        let arguments = record::seal(&[&[2, 1, b'p', 3][..], length, &[0; 64]].concat()).unwrap();
        let (decoded, peak) = memory::peak(|| codec::decode_spawn_spec(&arguments));
        assert!(matches!(decoded, Err(RecordError::Short(_) | RecordError::Bad(_))), "{decoded:?}");
        assert!(peak < 4096, "{peak} bytes held");
        let note = [&[3, 1, 1, b'k', 2][..], length, &[0; 64]].concat();
        let (decoded, peak) = memory::peak(|| codec::decode_order(&note));
        assert!(matches!(decoded, Err(RecordError::Short(_) | RecordError::Bad(_))), "{decoded:?}");
        assert!(peak < 4096, "{peak} bytes held");
    }
    let long = [&[3, 1, 1, b'k', 2, 0x81, 0x80, 0x03][..], &[0; NOTE_BYTES_MAX + 1]].concat();
    let (decoded, peak) = memory::peak(|| codec::decode_order(&long));
    assert!(matches!(decoded, Err(RecordError::TooLong { field: "value", .. })), "{decoded:?}");
    assert!(peak < 4096, "{peak} bytes held");
    // The most that a description of the largest size can be blown up to: entries without a byte of their own.
    let spec = |count: usize| {
        let mut record = vec![2, 1, b'p'];
        record::put(&mut record, 3, "args", &vec![0_u8; count], record::Bound::None).unwrap();
        record::seal(&record).unwrap()
    };
    let most = spec(record::LIST_ITEMS_MAX);
    let (decoded, peak) = memory::peak(|| codec::decode_spawn_spec(&most).unwrap().args.len());
    assert_eq!(decoded, record::LIST_ITEMS_MAX);
    assert!(peak <= 16 * SPAWN_SPEC_BYTES_MAX, "{peak} bytes held");
    let more = spec(SPAWN_SPEC_BYTES_MAX - 64);
    let (decoded, peak) = memory::peak(|| codec::decode_spawn_spec(&more));
    assert!(matches!(decoded, Err(RecordError::TooLong { field: "number of items", .. })), "{decoded:?}");
    assert!(peak <= 16 * SPAWN_SPEC_BYTES_MAX, "{peak} bytes held");
}

#[test]
fn a_keepers_state_costs_no_more_than_what_it_says() {
    let valid = super::corpus::keeper_states().pop().unwrap();
    // A document that says that it is as long as everything may be.
    let at = b"\x93cluster".len() + 2;
    let mut liar = valid.clone();
    liar[at..at + 4].copy_from_slice(&(KEEPER_STATE_BYTES_MAX as u32).to_le_bytes());
    let (decoded, peak) = memory::peak(|| state::decode(&liar));
    assert_eq!(decoded, Err(RecordError::Damaged));
    assert!(peak < 4096, "{peak} bytes held");
    // So many fields that nobody knows as there is room for.
    let unknown = record::seal(&[200, 0].repeat(2 * 1024 * 1024)).unwrap();
    let (decoded, peak) = memory::peak(|| state::decode(&unknown));
    assert!(decoded.is_err() && peak < 4096, "{peak} bytes held");
    let (decoded, peak) = memory::peak(|| state::decode(&valid));
    assert!(decoded.is_ok() && peak < 8 * valid.len() + 16 * 1024, "{peak} bytes held for {}", valid.len());
}

#[test]
fn a_packet_costs_no_more_than_itself() {
    let mut random = super::random::Random::new(1);
    for length in [0, 1, 17, 1024, KEEPER_PACKET_BYTES_MAX] {
        for _ in 0..20 {
            let mut packet: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
            if let Some(kind) = packet.first_mut() {
                *kind %= 12;
            }
            let (_, peak) = memory::peak(|| (codec::decode_order(&packet), codec::decode_notice(&packet)));
            assert!(peak <= 2 * length + 256, "{peak} bytes held for {length}");
        }
    }
    let datagram = b"STATUS=".repeat(NOTIFY_BYTES_MAX / 7);
    let (_, peak) = memory::peak(|| notify::parse(&datagram));
    assert!(peak <= 4 * NOTIFY_BYTES_MAX, "{peak} bytes held");
}
