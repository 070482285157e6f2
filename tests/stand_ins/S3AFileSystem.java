package org.apache.hadoop.fs.s3a;

import java.io.ByteArrayOutputStream;
import java.io.EOFException;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.HttpURLConnection;
import java.net.URI;
import java.net.URL;
import java.net.URLEncoder;
import java.text.SimpleDateFormat;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Date;
import java.util.List;
import java.util.Locale;
import java.util.TimeZone;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;
import javax.xml.parsers.DocumentBuilderFactory;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FSInputStream;
import org.apache.hadoop.fs.FileAlreadyExistsException;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.permission.FsPermission;
import org.apache.hadoop.util.Progressable;
import org.w3c.dom.Element;
import org.w3c.dom.NodeList;

/**
 * Stands in for hadoop-aws in the tests, which cannot fetch it: the same class name, the same settings (those of the
 * bucket before those of all), the same way to treat folders, against a real object store. Objects are held in memory,
 * requests are signed by version 2. In the part of Java that Janino, which Spark brings, compiles.
 */
public class S3AFileSystem extends FileSystem {
    private URI uri;
    private String bucket;
    private String endpoint;
    private String access;
    private String secret;

    public void initialize(URI name, Configuration conf) throws IOException {
        super.initialize(name, conf);
        this.setConf(conf);
        this.bucket = name.getHost();
        this.uri = URI.create("s3a://" + this.bucket);
        this.endpoint = this.setting("endpoint");
        this.access = this.setting("access.key");
        this.secret = this.setting("secret.key");
        if (!"true".equals(this.setting("path.style.access"))) {
            throw new IOException("the stand-in writes a bucket into the path only");
        }
    }

    private String setting(String name) throws IOException {
        String own = this.getConf().get("fs.s3a.bucket." + this.bucket + "." + name);
        String found = own == null ? this.getConf().get("fs.s3a." + name) : own;
        if (found == null) {
            throw new IOException("fs.s3a." + name + " is not set for " + this.bucket);
        }
        return found;
    }

    public URI getUri() {
        return this.uri;
    }

    public Path getWorkingDirectory() {
        return new Path(this.uri.toString() + "/");
    }

    public void setWorkingDirectory(Path path) {
    }

    private String key(Path path) {
        String whole = path.toUri().getPath();
        return whole.startsWith("/") ? whole.substring(1) : whole;
    }

    private Path path(String key) {
        return new Path(this.uri.toString() + "/" + key);
    }

    private HttpURLConnection request(String verb, String key, String query, byte[] body) throws IOException {
        try {
            SimpleDateFormat format = new SimpleDateFormat("EEE, dd MMM yyyy HH:mm:ss z", Locale.US);
            format.setTimeZone(TimeZone.getTimeZone("GMT"));
            String date = format.format(new Date());
            String kind = body == null ? "" : "application/octet-stream";
            String resource = "/" + this.bucket + "/" + key;
            Mac mac = Mac.getInstance("HmacSHA1");
            mac.init(new SecretKeySpec(this.secret.getBytes("UTF-8"), "HmacSHA1"));
            String signed = verb + "\n\n" + kind + "\n" + date + "\n" + resource;
            String signature = Base64.getEncoder().encodeToString(mac.doFinal(signed.getBytes("UTF-8")));
            URL address = new URL(this.endpoint + resource + query);
            HttpURLConnection asked = (HttpURLConnection) address.openConnection();
            asked.setRequestMethod(verb);
            asked.setRequestProperty("Date", date);
            asked.setRequestProperty("Authorization", "AWS " + this.access + ":" + signature);
            if (body != null) {
                asked.setRequestProperty("Content-Type", kind);
                asked.setDoOutput(true);
                asked.setFixedLengthStreamingMode(body.length);
                OutputStream out = asked.getOutputStream();
                out.write(body);
                out.close();
            }
            int code = asked.getResponseCode();
            if (code == 404) {
                throw new FileNotFoundException("no such object: " + this.path(key));
            }
            if (code >= 300) {
                throw new IOException("the store answered " + code + " to " + verb + " " + this.path(key));
            }
            return asked;
        } catch (java.security.GeneralSecurityException error) {
            throw new IOException(error);
        }
    }

    private byte[] get(String key) throws IOException {
        InputStream in = this.request("GET", key, "", null).getInputStream();
        byte[] found = in.readAllBytes();
        in.close();
        return found;
    }

    private void put(String key, byte[] content) throws IOException {
        this.request("PUT", key, "", content).getInputStream().close();
    }

    private void remove(String key) throws IOException {
        this.request("DELETE", key, "", null);
    }

    /** Lists what is below a prefix: objects, and with a delimiter folders, whose keys end in a slash. */
    private List list(String prefix, boolean deep) throws IOException {
        String query = "?list-type=2&prefix=" + URLEncoder.encode(prefix, "UTF-8") + (deep ? "" : "&delimiter=%2F");
        List found = new ArrayList();
        InputStream in = this.request("GET", "", query, null).getInputStream();
        try {
            Element all = DocumentBuilderFactory.newInstance().newDocumentBuilder().parse(in).getDocumentElement();
            if ("true".equals(all.getElementsByTagName("IsTruncated").item(0).getTextContent())) {
                throw new IOException("more than the stand-in lists, below " + prefix);
            }
            NodeList objects = all.getElementsByTagName("Contents");
            for (int i = 0; i < objects.getLength(); i++) {
                Element one = (Element) objects.item(i);
                String key = one.getElementsByTagName("Key").item(0).getTextContent();
                long size = Long.parseLong(one.getElementsByTagName("Size").item(0).getTextContent());
                found.add(key.endsWith("/") ? this.folder(key) : this.file(key, size));
            }
            NodeList folders = all.getElementsByTagName("CommonPrefixes");
            for (int i = 0; i < folders.getLength(); i++) {
                Element one = (Element) folders.item(i);
                found.add(this.folder(one.getElementsByTagName("Prefix").item(0).getTextContent()));
            }
        } catch (org.xml.sax.SAXException error) {
            throw new IOException(error);
        } catch (javax.xml.parsers.ParserConfigurationException error) {
            throw new IOException(error);
        } finally {
            in.close();
        }
        return found;
    }

    private FileStatus file(String key, long size) {
        return new FileStatus(size, false, 1, 33554432L, 0L, this.path(key));
    }

    private FileStatus folder(String key) {
        return new FileStatus(0L, true, 1, 0L, 0L, this.path(key));
    }

    public FileStatus getFileStatus(Path path) throws IOException {
        String key = this.key(path);
        if (key.isEmpty()) {
            return this.folder(key);
        }
        List found = this.list(key, false);
        for (int i = 0; i < found.size(); i++) {
            FileStatus one = (FileStatus) found.get(i);
            if (this.key(one.getPath()).equals(key)) {
                return one;
            }
        }
        throw new FileNotFoundException("no such file: " + path);
    }

    public FileStatus[] listStatus(Path path) throws IOException {
        FileStatus status = this.getFileStatus(path);
        if (status.isFile()) {
            return new FileStatus[] {status};
        }
        String prefix = this.key(path) + "/";
        List found = this.list(prefix, false);
        List below = new ArrayList();
        for (int i = 0; i < found.size(); i++) {
            FileStatus one = (FileStatus) found.get(i);
            if (!this.key(one.getPath()).equals(this.key(path))) {
                below.add(one);
            }
        }
        return (FileStatus[]) below.toArray(new FileStatus[0]);
    }

    public FSDataInputStream open(Path path, int size) throws IOException {
        return new FSDataInputStream(new Content(this.get(this.key(path))));
    }

    public FSDataOutputStream create(
            Path path, FsPermission mode, boolean overwrite, int size, short copies, long block, Progressable progress)
            throws IOException {
        if (!overwrite && this.exists(path)) {
            throw new FileAlreadyExistsException(path.toString());
        }
        return new FSDataOutputStream(new Upload(this, this.key(path)), null);
    }

    public FSDataOutputStream append(Path path, int size, Progressable progress) throws IOException {
        throw new UnsupportedOperationException("append");
    }

    public boolean mkdirs(Path path, FsPermission mode) throws IOException {
        this.put(this.key(path) + "/", new byte[0]);
        return true;
    }

    public boolean delete(Path path, boolean deep) throws IOException {
        if (!this.exists(path)) {
            return false;
        }
        if (this.getFileStatus(path).isFile()) {
            this.remove(this.key(path));
            return true;
        }
        List below = this.list(this.key(path) + "/", true);
        for (int i = 0; i < below.size(); i++) {
            FileStatus one = (FileStatus) below.get(i);
            this.remove(this.key(one.getPath()) + (one.isDirectory() ? "/" : ""));
        }
        this.remove(this.key(path) + "/");
        return true;
    }

    public boolean rename(Path from, Path to) throws IOException {
        Path target = to;
        if (this.exists(to)) {
            if (this.getFileStatus(to).isFile()) {
                return false;
            }
            target = new Path(to, from.getName());
        }
        if (this.getFileStatus(from).isFile()) {
            this.move(this.key(from), this.key(target));
            return true;
        }
        List below = this.list(this.key(from) + "/", true);
        for (int i = 0; i < below.size(); i++) {
            FileStatus one = (FileStatus) below.get(i);
            if (one.isFile()) {
                String key = this.key(one.getPath());
                this.move(key, this.key(target) + key.substring(this.key(from).length()));
            }
        }
        this.delete(from, true);
        return true;
    }

    private void move(String from, String to) throws IOException {
        this.put(to, this.get(from));
        this.remove(from);
    }

    private static class Content extends FSInputStream {
        private byte[] bytes;
        private int place;

        Content(byte[] bytes) {
            this.bytes = bytes;
        }

        public void seek(long place) throws IOException {
            if (place < 0 || place > this.bytes.length) {
                throw new EOFException("byte " + place + " of " + this.bytes.length);
            }
            this.place = (int) place;
        }

        public long getPos() {
            return this.place;
        }

        public boolean seekToNewSource(long place) {
            return false;
        }

        public int available() {
            return this.bytes.length - this.place;
        }

        public int read() {
            return this.place < this.bytes.length ? this.bytes[this.place++] & 255 : -1;
        }

        public int read(byte[] into, int first, int count) {
            if (this.place >= this.bytes.length) {
                return count == 0 ? 0 : -1;
            }
            int many = Math.min(count, this.bytes.length - this.place);
            System.arraycopy(this.bytes, this.place, into, first, many);
            this.place += many;
            return many;
        }
    }

    private static class Upload extends ByteArrayOutputStream {
        private S3AFileSystem store;
        private String key;
        private boolean done;

        Upload(S3AFileSystem store, String key) {
            this.store = store;
            this.key = key;
        }

        public void close() throws IOException {
            if (!this.done) {
                this.done = true;
                this.store.put(this.key, this.toByteArray());
            }
        }
    }
}
