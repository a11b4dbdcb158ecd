//! `siglip worker` where something is wrong, or slow: what ends a stream, and what it costs until then.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow_array::{ArrayRef, BinaryArray, Int64Array, NullArray, RecordBatch, StringArray};
#[cfg(target_os = "linux")]
use arrow_ipc::{reader::StreamReader, writer::StreamWriter};

use super::streams::{Answered, answer, batch, read, start, stream};

fn texts(rows: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(rows.to_vec()))
}

fn told(arguments: &[&str], input: Vec<u8>) -> Answered {
    let folder = tempfile::tempdir().unwrap();
    answer(folder.path(), arguments, input)
}

/// Lines that say what was wrong.
fn errors(answered: &Answered) -> usize {
    answered.told.lines().filter(|line| line.starts_with("error: ")).count()
}

fn refused(arguments: &[&str], input: Vec<u8>, code: i32, words: &str) -> Answered {
    let answered = told(arguments, input);
    assert_eq!(answered.code, Some(code), "{}", answered.told);
    assert!(answered.told.contains(words), "{words:?} is not in {}", answered.told);
    answered
}

#[test]
fn columns_that_cannot_be_are_an_error_before_any_work() {
    let number: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let picture: ArrayRef = Arc::new(BinaryArray::from(vec![b"x".as_slice()]));
    let text = || texts(&["a"]);
    for (arguments, columns, words) in [
        (&[][..], vec![("id", number.clone())], "no column \"image\" or \"text\" among id"),
        (&[], vec![("image", picture.clone()), ("text", text())], "choose one with --column"),
        (&["--column", "caption"], vec![("text", text())], "no column \"caption\" among text"),
        (&["--column", "id"], vec![("id", number.clone())], "is of type Int64"),
        (&["--column", "image", "text"], vec![("text", text())], "does not hold images"),
        (&[], vec![("image", text())], "does not hold images"),
        (&[], vec![("text", text()), ("error", text())], "a column \"error\" already"),
        (
            &["--keep-input", "--column", "embedding"],
            vec![("embedding", text())],
            "a column \"embedding\" already",
        ),
        (&["--column", "text"], vec![("text", text()), ("text", text())], "several columns"),
    ] {
        let answered = refused(arguments, stream(&[batch(columns)]), 65, words);
        assert!(answered.schema.is_none() && errors(&answered) == 1, "{}", answered.told);
    }
    // The column itself makes room for what is added.
    let own = told(&["--column", "embedding"], stream(&[batch(vec![("embedding", text())])]));
    assert_eq!((own.code, own.vectors().len()), (Some(0), 1), "{}", own.told);
}

#[test]
fn what_is_no_stream_is_told_in_one_line() {
    for (input, words) in [
        (Vec::new(), "empty stream"),
        (b"hello, this is no stream of Arrow messages at all".to_vec(), "the input: "),
        (b"ARROW1\0\0\xff\xff\xff\xff".to_vec(), "the input: "),
        (vec![0xff; 64], "metadata is not between"),
        // Metadata of 2 GiB that never come.
        (vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1], "metadata is not between"),
    ] {
        let answered = refused(&[], input, 65, words);
        assert_eq!(errors(&answered), 1, "{}", answered.told);
    }
    refused(&["--model", "./nowhere"], Vec::new(), 70, "no such file or folder");
    refused(&["--label-set", "none.txt"], Vec::new(), 1, "none.txt");
    refused(&["--max-batch-bytes", "3GiB"], Vec::new(), 2, "at most 2147483647 bytes");
}

#[test]
fn what_came_before_the_input_broke_is_answered() {
    let batches: Vec<RecordBatch> =
        ["a cat", "a dog", "a bird"].map(|t| batch(vec![("text", texts(&[t]))])).to_vec();
    let whole = stream(&batches);
    // Without its end the last batch is cut off.
    for cut in [whole.len() - 9, whole.len() - 40] {
        let answered = refused(&[], whole[..cut].to_vec(), 65, "cut off in the middle of a message");
        assert_eq!(answered.vectors().len(), 2, "{}", answered.told);
    }
    // Bytes that lie about offsets do not bring it down.
    let mut wrong = whole.clone();
    let at = wrong.len() - 8 - 64 - 8;
    wrong[at..at + 8].fill(0x7f);
    let answered = told(&[], wrong);
    assert!(matches!(answered.code, Some(0 | 65)), "{:?} {}", answered.code, answered.told);
}

#[test]
fn a_batch_that_is_too_large_is_refused_before_it_is_read() {
    let small = batch(vec![("text", texts(&["a cat"])), ("more", texts(&["x"]))]);
    let large = batch(vec![("text", texts(&["a dog"])), ("more", texts(&[&"x".repeat(100_000)]))]);
    let mut input = stream(&[small, large]);
    // Nothing of its body is needed for the answer.
    input.truncate(input.len() - 90_000);
    let answered = refused(&["--max-batch-bytes", "64KiB"], input, 65, "(--max-batch-bytes)");
    assert_eq!(answered.vectors().len(), 1);
    // Nor is a batch taken whose rows take nothing but whose vectors would.
    let nulls = batch(vec![
        ("text", Arc::new(StringArray::new_null(60_000)) as ArrayRef),
        ("nothing", Arc::new(NullArray::new(60_000))),
    ]);
    let answered = refused(&["--max-batch-bytes", "16MiB"], stream(&[nulls]), 65, "of 60000 rows and");
    assert!(answered.vectors().is_empty());
}

/// Nothing is taken from the input while nobody reads the output.
#[test]
fn a_slow_reader_holds_up_the_input_and_not_memory() {
    let folder = tempfile::tempdir().unwrap();
    let filler = "x".repeat(200_000);
    let one = batch(vec![("text", texts(&["a cat"])), ("more", texts(&[&filler]))]);
    let input = stream(&vec![one; 200]);
    let (all, sent) = (input.len(), Arc::new(AtomicUsize::new(0)));
    let mut child = start(folder.path(), &["--max-batch-bytes", "512KiB"]);
    let mut stdin = child.stdin.take().unwrap();
    let writer = {
        let sent = Arc::clone(&sent);
        std::thread::spawn(move || {
            for part in input.chunks(4096) {
                stdin.write_all(part).unwrap();
                sent.fetch_add(part.len(), Ordering::SeqCst);
            }
        })
    };
    let mut before = 0;
    // Until nothing more goes in.
    loop {
        std::thread::sleep(Duration::from_millis(500));
        let now = sent.load(Ordering::SeqCst);
        if now > 0 && now == before {
            break;
        }
        before = now;
    }
    // The gate holds 1 MiB; two pipes and a batch in the writer's hands are the rest.
    assert!(before < 2_000_000, "{before} of {all} bytes were taken");
    let mut output = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut output).unwrap();
    writer.join().unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(read(output.as_slice()).1.len(), 200);
}

/// The most memory that a worker held while it answered so many batches of pictures to a slow reader, in bytes.
#[cfg(target_os = "linux")]
fn most_memory(batches: usize) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let pictures: Vec<Vec<u8>> =
        super::examples().iter().cycle().take(8).map(|path| std::fs::read(path).unwrap()).collect();
    let pictures = BinaryArray::from_iter_values(&pictures);
    let more = StringArray::from_iter_values(std::iter::repeat_n("x".repeat(150_000), 8));
    let one = batch(vec![("image", Arc::new(pictures) as ArrayRef), ("more", Arc::new(more))]);
    let mut child = start(folder.path(), &["--max-batch-bytes", "4MiB", "--threads", "1"]);
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        let mut stream = StreamWriter::try_new(&mut stdin, &one.schema()).unwrap();
        (0..batches).for_each(|_| stream.write(&one).unwrap());
        stream.flush().unwrap();
        drop(stream);
        stdin
    });
    let output = Slow(child.stdout.take().unwrap());
    let mut answers = StreamReader::try_new(output, None).unwrap();
    for _ in 0..batches {
        assert_eq!(answers.next().unwrap().unwrap().num_rows(), 8);
    }
    let stdin = writer.join().unwrap();
    // It waits for more: everything that it ever held is known.
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let kilobytes: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    drop(stdin);
    // The input ended without the mark of its end, which is fine between two batches.
    assert!(child.wait().unwrap().success());
    kilobytes * 1024
}

/// A reader that takes 1 MB in some 30 ms.
#[cfg(target_os = "linux")]
struct Slow<R>(R);

#[cfg(target_os = "linux")]
impl<R: Read> Read for Slow<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        std::thread::sleep(Duration::from_millis(2));
        let most = buffer.len().min(1 << 16);
        self.0.read(&mut buffer[..most])
    }
}

#[cfg(target_os = "linux")]
#[test]
fn memory_is_the_same_for_ten_times_the_data() {
    let (few, many) = (most_memory(10), most_memory(100));
    println!("{few} bytes for 10 batches of 1.2 MB, {many} for 100");
    // 108 MB more went through it. What the allocator keeps of freed memory varies by tens of megabytes between threads.
    assert!(many < few + (54 << 20), "{few} bytes for 10 batches of 1.2 MB, {many} for 100");
}

#[test]
fn a_closed_output_ends_it_quietly() {
    let folder = tempfile::tempdir().unwrap();
    let one = batch(vec![("text", texts(&["a cat"])), ("more", texts(&[&"x".repeat(100_000)]))]);
    let mut child = start(folder.path(), &[]);
    drop(child.stdout.take());
    let mut stdin = child.stdin.take().unwrap();
    let _ = stdin.write_all(&stream(&vec![one; 50]));
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let told = super::text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(!told.contains("error") && !told.contains("done"), "{told}");
}

#[cfg(unix)]
mod sockets {
    use std::io::{BufRead, BufReader};
    use std::net::{Shutdown, TcpStream};
    use std::os::unix::net::UnixStream;
    use std::process::Command;

    use super::*;

    /// One stream on a connection: sent from a thread of its own, and read.
    fn exchange(
        mut to: impl Write + Send + 'static,
        from: impl Read,
        word: &'static str,
    ) -> Vec<RecordBatch> {
        let batches =
            vec![batch(vec![("text", texts(&[word, "a dog"])), ("word", texts(&[word, word]))]); 20];
        let sender = std::thread::spawn(move || to.write_all(&stream(&batches)).unwrap());
        let (schema, batches) = read(from);
        assert!(schema.unwrap().metadata().contains_key("siglip.fingerprint"));
        sender.join().unwrap();
        batches
    }

    #[test]
    fn several_streams_are_answered_by_one_model_until_it_is_told_to_stop() {
        for address in ["unix:worker.sock", "tcp:127.0.0.1:0"] {
            let folder = tempfile::tempdir().unwrap();
            let mut child = start(folder.path(), &["--listen", address]);
            let mut told = BufReader::new(child.stderr.take().unwrap());
            let mut ready = String::new();
            told.read_line(&mut ready).unwrap();
            assert!(ready.starts_with("siglip worker: ready "), "{ready}");
            let place = ready.trim().split_once(" listen=").expect("where it listens").1.to_owned();
            let path = folder.path().join("worker.sock");
            let streams = ["a cat", "a car"].map(|word| {
                let (place, path) = (place.clone(), path.clone());
                std::thread::spawn(move || match place.strip_prefix("tcp:") {
                    Some(address) => {
                        let stream = TcpStream::connect(address).unwrap();
                        exchange(stream.try_clone().unwrap(), &stream, word)
                    }
                    None => {
                        let stream = UnixStream::connect(&path).unwrap();
                        exchange(stream.try_clone().unwrap(), &stream, word)
                    }
                })
            });
            let [cats, cars] = streams.map(|stream| stream.join().unwrap());
            assert_eq!((cats.len(), cars.len()), (20, 20));
            for (batches, word) in [(&cats, "a cat"), (&cars, "a car")] {
                assert!(
                    batches
                        .iter()
                        .all(|b| super::super::streams::strings(b, "word")[0].as_deref() == Some(word))
                );
            }
            let vector = |batch: &RecordBatch, row: usize| super::super::streams::vectors(batch)[row].clone();
            assert_eq!(vector(&cats[0], 1), vector(&cars[19], 1));
            assert_ne!(vector(&cats[0], 0), vector(&cars[0], 0));
            if address.starts_with("unix") {
                // Garbage ends its own stream and no other; what is open when it is told to stop may end.
                let mut garbage = UnixStream::connect(&path).unwrap();
                garbage.write_all(b"no stream of Arrow messages").unwrap();
                garbage.shutdown(Shutdown::Write).unwrap();
                // Closed, or reset since not all of it was read.
                assert!(!matches!(garbage.read(&mut [0]), Ok(1)));
                let second = start(folder.path(), &["--listen", address]).wait_with_output().unwrap();
                assert_eq!(second.status.code(), Some(75), "{}", super::super::text(&second.stderr));
                let open = UnixStream::connect(&path).unwrap();
                let mut to = open.try_clone().unwrap();
                let input = stream(&[batch(vec![("text", texts(&["a cat"]))])]);
                to.write_all(&input[..100]).unwrap();
                std::thread::sleep(Duration::from_millis(200));
                terminate(child.id());
                std::thread::sleep(Duration::from_millis(200));
                to.write_all(&input[100..]).unwrap();
                assert_eq!(read(&open).1.len(), 1);
            } else {
                terminate(child.id());
            }
            let code = child.wait().unwrap().code();
            let mut rest = String::new();
            told.read_to_string(&mut rest).unwrap();
            assert_eq!(code, Some(0), "{rest}");
            assert!(!path.exists() && rest.contains("stream 1: done rows=40"), "{rest}");
        }
    }

    fn terminate(process: u32) {
        assert!(Command::new("kill").arg(process.to_string()).status().unwrap().success());
    }
}
