# Answers at once; /wait?NAME says that it has begun in NAME.begun and answers when NAME exists.
require "webrick"

server = WEBrick::HTTPServer.new(BindAddress: "127.0.0.1", Port: ARGV[0].to_i, AccessLog: [],
                                 Logger: WEBrick::Log.new(File::NULL), RequestTimeout: 60)
server.mount_proc("/") { |_, response| response.body = "hello\n" }
server.mount_proc("/wait") do |request, response|
  File.write("#{request.query_string}.begun", "")
  sleep 0.005 until File.exist?(request.query_string)
  response.body = "waited\n"
end
server.start
