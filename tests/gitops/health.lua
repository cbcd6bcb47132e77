-- Runs Argo CD's health check for our resources on resources in every state. Argo CD's Lua is that of 5.1.
--
--   lua5.1 tests/gitops/health.lua config/argocd/health.lua           the cases below
--   lua5.1 tests/gitops/health.lua config/argocd/health.lua OBJECTS   prints the health of each object of a file that returns a list of them

local script, objects = arg[1], arg[2]

local function health_of(object)
  obj = object
  return dofile(script)
end

if objects ~= nil then
  for _, object in ipairs(dofile(objects)) do
    local health = health_of(object)
    print(object.kind .. "/" .. object.metadata.name .. " " .. health.status .. " " .. health.message)
  end
  os.exit(0)
end

-- A resource of generation 3, with conditions such as Ready = "True because it works".
local function resource(conditions, observed)
  local list = {}
  for type, text in pairs(conditions) do
    local status, message = text:match("^(%a+) ?(.*)$")
    table.insert(list, { type = type, status = status, message = message })
  end
  return { metadata = { generation = 3 }, status = { observedGeneration = observed or 3, conditions = list } }
end

local cases = {
  { "one that the operator has not seen", { metadata = { generation = 1 } }, "Progressing", "Waiting for the operator" },
  { "a status without anything", { metadata = { generation = 1 }, status = {} }, "Progressing", "Waiting for the operator" },
  { "a status of an older generation", resource({ Ready = "True", Accepted = "True" }, 2), "Progressing", "Waiting for the operator" },
  { "a rule that runs", resource({ Ready = "True in 3 of 3 workers", Accepted = "True" }), "Healthy", "in 3 of 3 workers" },
  { "a rule that is on its way", resource({ Ready = "False in 1 of 3 workers", Accepted = "True" }), "Progressing", "in 1 of 3 workers" },
  { "a rule without workers", resource({ Ready = "Unknown no worker", Accepted = "True" }), "Progressing", "no worker" },
  { "a rule that is refused", resource({ Ready = "False the last good version runs", Accepted = "False line 3" }), "Degraded", "line 3" },
  { "a Siem that stands", resource({ Ready = "True all", Progressing = "False", Degraded = "False" }), "Healthy", "all" },
  { "a Siem that comes up", resource({ Ready = "False no", Progressing = "True pods", Degraded = "False" }), "Progressing", "pods" },
  { "a Siem that works and is changed", resource({ Ready = "True", Progressing = "True roll", Degraded = "False" }), "Progressing", "roll" },
  { "a Siem with a part that is down", resource({ Ready = "False", Progressing = "True", Degraded = "True red" }), "Degraded", "red" },
  { "a Siem that says nothing more", resource({ Ready = "False" }), "Progressing", "Not ready yet" },
}

local failed = 0
for _, case in ipairs(cases) do
  local name, object, status, message = case[1], case[2], case[3], case[4]
  local health = health_of(object)
  if health.status ~= status or health.message ~= message then
    failed = failed + 1
    print(name .. ": expected " .. status .. " `" .. message .. "`, got " .. tostring(health.status) .. " `" .. tostring(health.message) .. "`")
  end
end
os.exit(failed == 0 and 0 or 1)
