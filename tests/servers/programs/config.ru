# Answers at once; /wait?NAME says that it has begun in NAME.begun and answers when NAME exists.
run(lambda do |environment|
  body = "hello\n"
  if environment["PATH_INFO"] == "/wait"
    name = environment["QUERY_STRING"]
    File.write("#{name}.begun", "")
    sleep 0.005 until File.exist?(name)
    body = "waited\n"
  end
  [200, { "Content-Type" => "text/plain", "Content-Length" => body.bytesize.to_s }, [body]]
end)
